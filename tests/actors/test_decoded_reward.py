"""The reward's two terms, by hand. Letters: B images, G samples a group, T tokens, C, H, W of a picture."""

import pytest
import torch
from actors.pixel_reward import PixelReward
from torch import Tensor
from torch.testing import assert_close

from common.clock import StageClock
from common.config.algorithm import RewardSection
from common.errors import RecipeError


class DrawsTokens:
    """A tokenizer whose picture shows the four tokens, over 10, as the grey of its 2 x 2 pixels."""

    num_tokens = 4
    codebook_size = 20

    def __init__(self) -> None:
        self.decoded_at_once: list[int] = []

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        raise NotImplementedError

    def decode(self, tokens_BT: Tensor) -> Tensor:
        self.decoded_at_once.append(len(tokens_BT))
        return (tokens_BT / 10).reshape(-1, 1, 2, 2).expand(-1, 3, -1, -1)


class MeanDifference:
    """A perceptual metric whose only feature is the mean, and which records whose features it computed."""

    def __init__(self) -> None:
        self.reference_means: list[list[float]] = []

    def to(self, device: torch.device) -> "MeanDifference":
        return self

    def reference_features(self, pixels_BCHW: Tensor) -> Tensor:
        means_B = pixels_BCHW.mean(dim=(1, 2, 3))
        self.reference_means.append([round(mean, 4) for mean in means_B.tolist()])
        return means_B

    def distance(self, pixels_BGCHW: Tensor, reference: Tensor) -> Tensor:
        return (pixels_BGCHW.mean(dim=(2, 3, 4)) - reference[:, None]).abs()


# Two images of one grey each, two samples an image.
PIXELS = torch.tensor([0.0, 0.5]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
TOKENS = torch.tensor([[[0, 0, 0, 0], [10, 0, 0, 0]], [[5, 5, 5, 5], [15, 15, 5, 5]]])
MSE = [[0.0, 0.25], [0.0, 0.5]]  # 1² on a quarter of the pixels; 1² on half of them, beyond white and unclamped
DISTANCE = [[0.0, 0.25], [0.0, 0.5]]  # 1 on a quarter, 1 on a half


def terms(
    section: RewardSection, tokenizer: DrawsTokens | None = None, metric: MeanDifference | None = None
) -> tuple[list[list[float]], list[list[float]]]:
    reward = PixelReward(tokenizer or DrawsTokens(), metric, section)
    terms = reward.terms(TOKENS, PIXELS, StageClock())
    assert set(terms.present()) == {"mse_BG", "lpips_BG"}
    assert terms.mse_BG.dtype == terms.lpips_BG.dtype == torch.float32
    return terms.mse_BG.tolist(), terms.lpips_BG.tolist()


def test_both_terms_compare_each_sample_with_its_own_image() -> None:
    mse_BG, lpips_BG = terms(RewardSection(), metric=MeanDifference())
    assert mse_BG == [pytest.approx(row) for row in MSE]
    assert lpips_BG == [pytest.approx(row) for row in DISTANCE]


def test_the_terms_are_facts_that_the_weights_do_not_change() -> None:
    section = RewardSection(mse_weight=3.0, lpips_weight=0.1)
    assert terms(section, metric=MeanDifference()) == terms(RewardSection(), metric=MeanDifference())


def test_features_of_a_source_image_are_computed_once_a_group() -> None:
    at_once, one_by_one = MeanDifference(), MeanDifference()
    terms(RewardSection(decode_batch_size=64), metric=at_once)
    terms(RewardSection(decode_batch_size=2), metric=one_by_one)
    assert at_once.reference_means == [[0.0, 0.5]]
    assert one_by_one.reference_means == [[0.0], [0.5]]


@pytest.mark.parametrize(
    ("decode_batch_size", "decoded_at_once"),
    [(1, [2, 2]), (3, [2, 2]), (4, [4]), (64, [4])],  # a group is never split
)
def test_the_decode_batch_size_bounds_the_memory_and_changes_no_value(
    decode_batch_size: int, decoded_at_once: list[int]
) -> None:
    tokenizer = DrawsTokens()
    section = RewardSection(decode_batch_size=decode_batch_size)
    assert terms(section, tokenizer, MeanDifference()) == terms(RewardSection(), metric=MeanDifference())
    assert tokenizer.decoded_at_once == decoded_at_once


def test_without_its_weight_the_perceptual_distance_is_not_computed() -> None:
    metric = MeanDifference()
    mse_BG, lpips_BG = terms(RewardSection(lpips_weight=0), metric=metric)
    assert mse_BG == [pytest.approx(row) for row in MSE]
    assert lpips_BG == [[0.0, 0.0], [0.0, 0.0]]
    assert metric.reference_means == []


def test_without_its_weight_the_squared_error_is_left_zero() -> None:
    mse_BG, lpips_BG = terms(RewardSection(mse_weight=0), metric=MeanDifference())
    assert mse_BG == [[0.0, 0.0], [0.0, 0.0]]
    assert lpips_BG == [pytest.approx(row) for row in DISTANCE]


def test_without_any_weight_nothing_is_decoded() -> None:
    tokenizer = DrawsTokens()
    assert terms(RewardSection(mse_weight=0, lpips_weight=0), tokenizer) == ([[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2)
    assert tokenizer.decoded_at_once == []


def test_no_metric_is_needed_where_its_weight_is_zero() -> None:
    assert terms(RewardSection(lpips_weight=0), metric=None)[1] == [[0.0, 0.0], [0.0, 0.0]]


def test_decoding_and_comparing_are_timed_apart() -> None:
    clock = StageClock()
    PixelReward(DrawsTokens(), MeanDifference(), RewardSection()).terms(TOKENS, PIXELS, clock)
    assert set(clock.seconds) == {"decode", "perceptual"}


class MapOfDifferences(MeanDifference):
    """The same, and where in the picture."""

    def distance_map(self, pixels_BGCHW: Tensor, reference: Tensor, grid_size: int) -> Tensor:
        assert grid_size == 2
        return (pixels_BGCHW.mean(dim=2) - reference[:, None, None, None]).abs().flatten(2)


def test_maps_say_where_the_terms_come_from_and_their_means_are_the_terms() -> None:
    section = RewardSection(l1_weight=0.5, decode_batch_size=2)
    with_maps = PixelReward(DrawsTokens(), MapOfDifferences(), section, has_maps=True)
    terms = with_maps.terms(TOKENS, PIXELS, StageClock())
    assert set(terms.present()) == {"mse_BG", "lpips_BG", "l1_BG", "mse_map_BGT", "lpips_map_BGT", "l1_map_BGT"}
    assert_close(terms.mse_BG, torch.tensor(MSE))
    assert_close(terms.lpips_BG, torch.tensor(DISTANCE))
    assert terms.mse_map_BGT is not None
    assert_close(terms.mse_map_BGT[1], torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 0, 0]]))
    for name in ("mse", "lpips", "l1"):
        present = terms.present()
        assert_close(present[f"{name}_map_BGT"].mean(-1), present[f"{name}_BG"], rtol=0, atol=1e-6)


def test_the_absolute_error_is_recorded_where_it_is_weighted_and_alone_too() -> None:
    section = RewardSection(mse_weight=0, lpips_weight=0, l1_weight=1)
    terms = PixelReward(DrawsTokens(), None, section).terms(TOKENS, PIXELS, StageClock())
    assert set(terms.present()) == {"mse_BG", "lpips_BG", "l1_BG"}
    assert terms.l1_BG is not None
    assert_close(terms.l1_BG, torch.tensor([[0.0, 0.25], [0.0, 0.5]]))
    assert not terms.mse_BG.any()


def test_a_metric_that_cannot_say_where_is_refused_for_maps_alone() -> None:
    PixelReward(DrawsTokens(), MeanDifference(), RewardSection())
    with pytest.raises(RecipeError, match=r"MeanDifference has no distance_map: use another perceptual\.family"):
        PixelReward(DrawsTokens(), MeanDifference(), RewardSection(), has_maps=True)
