"""The terms of the reward, by hand. Letters: B images, G samples a group, T tokens, C, H, W of a picture."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from actors.rewards.build import build_reward
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.own_term import OwnTerm
from actors.rewards.pixel_errors import SquaredError
from actors.rewards.term import RewardTerm, Sources
from common.clock import StageClock
from common.config.algorithm import Credit, RewardSection
from common.errors import RecipeError, RewardError
from common.reward_terms import RewardTerms


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
SOURCES = Sources(PIXELS, {"label": torch.tensor([7, 8])}, ("a.png", "b.png"))
TOKENS = torch.tensor([[[0, 0, 0, 0], [10, 0, 0, 0]], [[5, 5, 5, 5], [15, 15, 5, 5]]])
MSE = [[0.0, 0.25], [0.0, 0.5]]  # 1² on a quarter of the pixels; 1² on half of them, beyond white and unclamped
DISTANCE = [[0.0, 0.25], [0.0, 0.5]]  # 1 on a quarter, 1 on a half


def measured(
    section: RewardSection,
    tokenizer: DrawsTokens | None = None,
    metric: MeanDifference | None = None,
    credit: Credit = "sample",
) -> RewardTerms:
    reward = build_reward(section, tokenizer or DrawsTokens(), metric, credit)
    return reward.measure(TOKENS, SOURCES, StageClock())


def terms(
    section: RewardSection, tokenizer: DrawsTokens | None = None, metric: MeanDifference | None = None
) -> dict[str, list[list[float]]]:
    terms = measured(section, tokenizer, metric)
    assert terms.shape_BG == (2, 2)
    assert (terms.maps, terms.failures) == ({}, {})
    assert all(term_BG.dtype == torch.float32 for term_BG in terms.terms.values())
    return {name: term_BG.tolist() for name, term_BG in terms.terms.items()}


def test_both_terms_compare_each_sample_with_its_own_image() -> None:
    both = terms(RewardSection(), metric=MeanDifference())
    assert list(both) == ["mse", "lpips"]
    assert both["mse"] == [pytest.approx(row) for row in MSE]
    assert both["lpips"] == [pytest.approx(row) for row in DISTANCE]


def test_the_terms_are_facts_that_the_weights_do_not_change() -> None:
    section = RewardSection(mse=3.0, lpips=0.1)
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


def test_without_its_weight_the_perceptual_distance_is_not_computed_and_absent() -> None:
    metric = MeanDifference()
    assert terms(RewardSection(lpips=0), metric=metric) == {"mse": [pytest.approx(row) for row in MSE]}
    assert metric.reference_means == []


def test_without_its_weight_the_squared_error_is_absent() -> None:
    alone = terms(RewardSection(mse=0), metric=MeanDifference())
    assert alone == {"lpips": [pytest.approx(row) for row in DISTANCE]}


def test_without_any_weight_nothing_is_decoded() -> None:
    tokenizer = DrawsTokens()
    assert terms(RewardSection(mse=0, lpips=0), tokenizer) == {}
    assert tokenizer.decoded_at_once == []


def test_no_metric_is_needed_where_its_weight_is_zero() -> None:
    assert list(terms(RewardSection(lpips=0), metric=None)) == ["mse"]


def test_decoding_and_comparing_are_timed_apart() -> None:
    clock = StageClock()
    build_reward(RewardSection(), DrawsTokens(), MeanDifference()).measure(TOKENS, SOURCES, clock)
    assert set(clock.seconds) == {"decode", "perceptual"}


class MapOfDifferences(MeanDifference):
    """The same, and where in the picture."""

    def distance_map(self, pixels_BGCHW: Tensor, reference: Tensor, grid_size: int) -> Tensor:
        assert grid_size == 2
        return (pixels_BGCHW.mean(dim=2) - reference[:, None, None, None]).abs().flatten(2)


def test_maps_say_where_the_terms_come_from_and_their_means_are_the_terms() -> None:
    section = RewardSection(l1=0.5, decode_batch_size=2)
    terms = measured(section, metric=MapOfDifferences(), credit="token")
    assert list(terms.terms) == list(terms.maps) == ["mse", "lpips", "l1"]
    assert_close(terms.terms["mse"], torch.tensor(MSE))
    assert_close(terms.terms["lpips"], torch.tensor(DISTANCE))
    assert_close(terms.maps["mse"][1], torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 0, 0]]))
    for name in ("mse", "lpips", "l1"):
        assert_close(terms.maps[name].mean(-1), terms.terms[name], rtol=0, atol=1e-6)


def test_the_absolute_error_is_recorded_where_it_is_weighted_and_alone_too() -> None:
    terms = measured(RewardSection(mse=0, lpips=0, l1=1)).terms
    assert list(terms) == ["l1"]
    assert_close(terms["l1"], torch.tensor([[0.0, 0.25], [0.0, 0.5]]))


def test_a_metric_that_cannot_say_where_is_refused_for_maps_alone() -> None:
    build_reward(RewardSection(), DrawsTokens(), MeanDifference())
    with pytest.raises(RecipeError, match=r"MeanDifference has no distance_map: use another perceptual\.family"):
        build_reward(RewardSection(), DrawsTokens(), MeanDifference(), "token")
    build_reward(RewardSection(lpips=0), DrawsTokens(), MeanDifference(), "token")


def test_a_reward_without_terms_asks_for_no_decoder_of_its_own() -> None:
    class KeepsItsDecoder(DrawsTokens):
        def for_scoring(self, *_: Any) -> Any:
            raise AssertionError("nothing is decoded")

    section = RewardSection(mse=0, lpips=0, decode_dtype="bfloat16")
    assert terms(section, KeepsItsDecoder()) == {}


class Brightness:
    """The mean of each sample; does what `told` says for an image, by its id."""

    higher_is_better = True
    stage = "score"

    def __init__(self, told: Mapping[str, Any] | None = None):
        self._told = told or {}
        self.seen: list[tuple[str, ...]] = []

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        assert len(decoded_BGCHW) == len(sources.pixels_BCHW) == len(sources.condition["label"])
        self.seen.append(sources.image_ids)
        brightness_BG = decoded_BGCHW.mean(dim=(2, 3, 4))
        for image_id in sources.image_ids:
            said = self._told.get(image_id)
            if isinstance(said, Exception):
                raise said
            if said is not None:
                return said(brightness_BG)
        return brightness_BG


# As a file has it: clamped, and one of 256 steps. The greys 0, 0.5 and 1 are the bytes 128, 191 and 255.
BLACK, GREY = 128 / 127.5 - 1, 191 / 127.5 - 1
BRIGHTNESS = [[BLACK, (1 + 3 * BLACK) / 4], [GREY, (2 + 2 * GREY) / 4]]


def reward_with(term: RewardTerm, has_maps: bool = False, **section: Any) -> DecodedReward:
    both = {"mse": SquaredError(), "brightness": term}
    return DecodedReward(DrawsTokens(), both, RewardSection(**section), has_maps)


def test_a_term_that_says_no_place_gives_each_token_of_a_sample_the_same() -> None:
    terms = reward_with(Brightness(), has_maps=True).measure(TOKENS, SOURCES, StageClock())
    assert_close(terms.terms["brightness"], torch.tensor(BRIGHTNESS))
    assert_close(terms.maps["brightness"], torch.tensor(BRIGHTNESS)[:, :, None].expand(2, 2, 4))
    assert_close(terms.maps["mse"][1], torch.tensor([[0.0, 0, 0, 0], [1.0, 1, 0, 0]]))
    assert terms.higher_is_better == {"brightness"}


def test_a_term_is_given_the_sources_of_the_images_that_are_decoded_together() -> None:
    term = Brightness()
    clock = StageClock()
    terms = reward_with(term, decode_batch_size=2).measure(TOKENS, SOURCES, clock)
    assert term.seen == [("a.png",), ("b.png",)]
    assert_close(terms.terms["brightness"], torch.tensor(BRIGHTNESS))
    assert set(clock.seconds) == {"decode", "score"}


def test_whole_numbers_and_doubles_become_float32() -> None:
    for kind in (torch.int64, torch.float64):
        term = OwnTerm(lambda decoded_BGCHW, _, kind=kind: torch.ones(2, 2, dtype=kind), higher_is_better=False)
        terms = reward_with(term).measure(TOKENS, SOURCES, StageClock()).terms
        assert terms["brightness"].dtype == torch.float32


@pytest.mark.parametrize("has_maps", [False, True])
@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (RuntimeError("no such colour\nin a long trace"), "failed: RuntimeError: no such colour"),
        (
            lambda brightness_BG: brightness_BG.mean(dim=1),
            "gave a tensor of shape [1]: it must give a tensor of shape [1, 2], [B, G]",
        ),
        (
            lambda brightness_BG: brightness_BG.tolist(),
            "gave list: it must give a tensor of shape [1, 2], [B, G]",
        ),
    ],
    ids=["raises", "wrong shape", "no tensor"],
)
def test_an_image_that_a_term_fails_on_is_named_with_the_term_and_the_others_are_as_without_it(
    told: Any, reason: str, has_maps: bool
) -> None:
    term = Brightness({"b.png": told})
    terms = reward_with(term, has_maps).measure(TOKENS, SOURCES, StageClock())
    assert terms.failures == {1: f"reward.brightness {reason}"}
    assert term.seen == [("a.png", "b.png"), ("a.png",), ("b.png",)]  # one by one, to find which
    assert_close(terms.terms["brightness"][0], torch.tensor(BRIGHTNESS[0]))
    assert_close(terms.terms["mse"], torch.tensor(MSE))
    for columns in (terms.terms, terms.maps):
        assert all(columns[name][1].isnan().all() for name in columns if name != "mse")
    assert list(terms.maps) == (["mse", "brightness"] if has_maps else [])
    with pytest.raises(RewardError, match=r"^reward\.brightness "):
        terms.require_whole()


class SometimesNoNumber(DrawsTokens):
    """Its second picture of the second image is no picture."""

    def decode(self, tokens_BT: Tensor) -> Tensor:
        decoded = super().decode(tokens_BT).clone()
        decoded[3, 0, 0, 0] = torch.nan
        return decoded


def test_of_a_picture_that_is_none_judges_have_no_number() -> None:
    both = {"mse": SquaredError(), "brightness": Brightness()}
    for has_maps in (False, True):
        reward = DecodedReward(SometimesNoNumber(), both, RewardSection(), has_maps)
        terms = reward.measure(TOKENS, SOURCES, StageClock())
        assert terms.terms["brightness"].isnan().tolist() == [[False, False], [False, True]]
        assert all(
            each.isnan().any(dim=-1).tolist() == [[False, False], [False, True]] for each in terms.maps.values()
        )


def test_a_reward_that_hands_over_measures_what_compares_and_gives_the_pictures_as_files_have_them() -> None:
    reward = DecodedReward(
        SometimesNoNumber(), {"mse": SquaredError()}, RewardSection(decode_batch_size=64), hands_over=True
    )
    terms = reward.measure(TOKENS, SOURCES, StageClock())
    assert list(terms.terms) == ["mse"]
    assert terms.pictures is not None
    assert terms.pictures.is_sound_BG.tolist() == [[True, True], [True, False]]
    pixels_BGCHW = terms.pictures.pixels_BGCHW
    assert (pixels_BGCHW.dtype, pixels_BGCHW.shape) == (torch.uint8, (2, 2, 3, 2, 2))
    assert pixels_BGCHW[:, :, 0].flatten(2)[0].tolist() == [[128] * 4, [255, 128, 128, 128]]
    assert reward_with(Brightness()).measure(TOKENS, SOURCES, StageClock()).pictures is None


def test_without_terms_of_its_own_it_decodes_for_others() -> None:
    tokenizer = DrawsTokens()
    reward = DecodedReward(tokenizer, {}, RewardSection(decode_batch_size=2), hands_over=True)
    terms = reward.measure(TOKENS, SOURCES, StageClock())
    assert (terms.terms, tokenizer.decoded_at_once) == ({}, [2, 2])
    assert terms.pictures is not None
    assert len(terms.pictures) == 2


def test_memory_that_is_too_small_is_no_fault_of_an_image() -> None:
    term = Brightness({"b.png": torch.OutOfMemoryError("CUDA out of memory")})
    with pytest.raises(torch.OutOfMemoryError):
        reward_with(term).measure(TOKENS, SOURCES, StageClock())
