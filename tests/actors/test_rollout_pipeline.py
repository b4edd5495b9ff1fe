"""From sample indices to scored groups, with small random models on noise pictures.

Letters: B images, G samples a group, T image tokens.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actors.image_batch import ImageBatch
from actors.rewards.build import build_reward
from actors.rollout_pipeline import RolloutPipeline, ScoredGroups
from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import BrokenImageError
from common.models.families import PolicyModule, TokenizerModule, build_policy, build_tokenizer
from common.pixels import to_tensor
from common.protocols import Condition, ImageSource, ImageTokenizer, SourceImage
from common.sample_order import SampleOrder
from common.schema import GroupBatch
from common.types import SkippedImage

NUM_IMAGES = 6
CPU = torch.device("cpu")


class NoisePictures:
    """Six pictures of noise, some of which cannot be decoded."""

    def __init__(self, broken: Collection[int] = ()) -> None:
        self._broken = broken

    def __len__(self) -> int:
        return NUM_IMAGES

    def read(self, index: int) -> SourceImage:
        if index in self._broken:
            raise BrokenImageError(f"picture-{index}.png", "it is cut short")
        pixels = np.random.default_rng(index).integers(256, size=(32, 32, 3), dtype=np.uint8)
        return SourceImage(f"picture-{index}.png", pixels, {"label": np.int64(index)})


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return with_changes(tiny_recipe, {"reward.lpips": 0})


def tokenizer_of(recipe: Recipe) -> TokenizerModule:
    torch.manual_seed(0)
    return build_tokenizer(recipe.tokenizer, image_size=32).eval()


def policy_of(recipe: Recipe) -> PolicyModule:
    torch.manual_seed(1)
    policy = build_policy(recipe.policy, codebook_size=20, grid_size=8)
    for parameter in policy.parameters():
        nn.init.normal_(parameter, std=0.3)
    return policy.eval()


def pipeline_of(
    recipe: Recipe, source: ImageSource | None = None, tokenizer: ImageTokenizer | None = None
) -> RolloutPipeline:
    tokenizer = tokenizer or tokenizer_of(recipe)
    reward = build_reward(recipe.reward, tokenizer, None, recipe.advantage.credit)
    return RolloutPipeline(recipe, source or NoisePictures(), tokenizer, reward, CPU)


def roll_out(recipe: Recipe, sample_indices: Sequence[int], broken: Collection[int] = ()) -> ScoredGroups:
    pipeline = pipeline_of(recipe, NoisePictures(broken))
    return pipeline.roll_out(policy_of(recipe), 3, sample_indices, StageClock())


def groups_of(rollout: ScoredGroups) -> GroupBatch:
    assert rollout.groups is not None
    return rollout.groups


def image_of(recipe: Recipe, sample_index: int) -> int:
    return SampleOrder(recipe.seed, NUM_IMAGES).image_index(sample_index)


def test_a_rollout_holds_the_groups_of_the_samples_in_order(recipe: Recipe) -> None:
    rollout = roll_out(recipe, (4, 5, 9))
    groups = groups_of(rollout)
    images = [image_of(recipe, index) for index in (4, 5, 9)]
    assert groups.sample_index_B.tolist() == [4, 5, 9]
    assert groups.image_id_B == tuple(f"picture-{image}.png" for image in images)
    assert groups.condition["label"].tolist() == images
    assert (groups.policy_version, groups.codebook_size) == (3, 20)
    assert groups.context_tokens_BT.shape == (3, 63)
    assert groups.target_tokens_BT.shape == (3, 64)
    assert groups.sampled_tokens_BGT.shape == groups.behaviour_logprobs_BGT.shape == (3, 4, 64)
    assert {name: term_BG.shape for name, term_BG in groups.reward_terms.items()} == {"mse": (3, 4)}
    assert (groups.reward_maps, groups.higher_is_better) == ({}, frozenset())
    assert rollout.skipped == ()


def test_a_group_is_what_the_models_say_of_its_image(recipe: Recipe) -> None:
    groups = groups_of(roll_out(recipe, (2,)))
    tokenizer, policy = tokenizer_of(recipe), policy_of(recipe)
    source = NoisePictures().read(image_of(recipe, 2))
    pixels_BCHW = to_tensor(source.pixels[None], CPU)
    with torch.no_grad():
        assert tokenizer.encode(pixels_BCHW).tolist() == groups.target_tokens_BT.tolist()
        context_BT = torch.from_numpy(groups.context_tokens_BT).long()
        logits_BTV = policy({"label": torch.tensor([int(source.condition["label"])])}, context_BT)
        sampled_GT = torch.from_numpy(groups.sampled_tokens_BGT[0]).long()
        logprobs_GT = logits_BTV.log_softmax(-1).expand(4, -1, -1).gather(-1, sampled_GT[..., None])[..., 0]
        mse_G = (tokenizer.decode(sampled_GT) - pixels_BCHW).square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(groups.behaviour_logprobs_BGT[0], logprobs_GT, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(groups.reward_terms["mse"][0], mse_G, rtol=1e-4)


def test_about_half_of_the_context_is_noise(recipe: Recipe) -> None:
    groups = groups_of(roll_out(recipe, range(6)))
    kept = (groups.context_tokens_BT == groups.target_tokens_BT[:, :-1]).mean()
    assert kept == pytest.approx(0.5 + 0.5 / 20, abs=0.1)  # a replacement may equal the original


def test_a_broken_image_is_skipped_and_named_and_the_others_are_as_without_it(recipe: Recipe) -> None:
    whole = groups_of(roll_out(recipe, range(4)))
    rollout = roll_out(recipe, range(4), broken={image_of(recipe, 1)})
    groups = groups_of(rollout)
    (skipped,) = rollout.skipped
    assert skipped.sample_index == 1
    assert skipped.image_id == f"picture-{image_of(recipe, 1)}.png"
    assert skipped.reason == "it is cut short"
    assert groups.sample_index_B.tolist() == [0, 2, 3]
    assert groups.image_id_B == tuple(whole.image_id_B[row] for row in (0, 2, 3))
    np.testing.assert_array_equal(groups.sampled_tokens_BGT, whole.sampled_tokens_BGT[[0, 2, 3]])


def test_a_ticket_of_broken_images_has_no_groups_and_names_them_all(recipe: Recipe) -> None:
    rollout = roll_out(recipe, (3, 4), broken=range(6))
    assert rollout.groups is None
    assert [skipped.sample_index for skipped in rollout.skipped] == [3, 4]


def test_the_tokens_of_a_sample_do_not_depend_on_the_others_of_its_ticket(recipe: Recipe) -> None:
    together, alone = groups_of(roll_out(recipe, range(4))), groups_of(roll_out(recipe, (2,)))
    np.testing.assert_array_equal(alone.target_tokens_BT[0], together.target_tokens_BT[2])
    np.testing.assert_array_equal(alone.context_tokens_BT[0], together.context_tokens_BT[2])
    np.testing.assert_array_equal(alone.sampled_tokens_BGT[0], together.sampled_tokens_BGT[2])
    mse_BG = together.reward_terms["mse"]
    np.testing.assert_allclose(alone.reward_terms["mse"][0], mse_BG[2], rtol=1e-4)


def test_the_same_ticket_gives_the_same_bits_twice(recipe: Recipe) -> None:
    one, other = groups_of(roll_out(recipe, range(3))), groups_of(roll_out(recipe, range(3)))
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.reward_terms["mse"], other.reward_terms["mse"])


def test_an_image_draws_anew_in_the_next_epoch_and_under_another_seed(recipe: Recipe) -> None:
    def drawn(recipe: Recipe, epoch: int) -> np.ndarray:
        indices = range(epoch * NUM_IMAGES, (epoch + 1) * NUM_IMAGES)
        (sample_index,) = (index for index in indices if image_of(recipe, index) == 0)
        groups = groups_of(roll_out(recipe, (sample_index,)))
        assert groups.image_id_B == ("picture-0.png",)
        return groups.sampled_tokens_BGT

    first = drawn(recipe, epoch=0)
    assert (first != drawn(recipe, epoch=1)).mean() > 0.5
    assert (first != drawn(with_changes(recipe, {"seed": 1}), epoch=0)).mean() > 0.5


def test_the_seconds_of_each_stage_are_taken(recipe: Recipe) -> None:
    clock = StageClock()
    pipeline_of(recipe).roll_out(policy_of(recipe), 0, (0,), clock)
    assert set(clock.seconds) == {"read", "encode", "policy", "sample", "decode"}


def test_the_way_of_the_pixels_to_the_device_is_in_a_stage(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(StageClock):
        stage = ""

        @contextmanager
        def __call__(self, stage: str) -> Iterator[None]:
            self.stage = stage
            with super().__call__(stage):
                yield
            self.stage = ""

    clock, stages, tensors = Clock(), [], ImageBatch.tensors

    def seen(batch: ImageBatch, device: torch.device) -> tuple[Tensor, Condition]:
        stages.append(clock.stage)
        return tensors(batch, device)

    monkeypatch.setattr(ImageBatch, "tensors", seen)
    pipeline_of(recipe).roll_out(policy_of(recipe), 0, (0,), clock)
    assert stages == ["read"]


def test_dropped_conditions_are_recorded_and_those_that_sampled(recipe: Recipe) -> None:
    dropping = with_changes(recipe, {"context.condition_drop": 0.5})
    kept, some = groups_of(roll_out(recipe, range(24))), groups_of(roll_out(dropping, range(24)))
    dropped_B = some.condition["label"] == recipe.policy.num_classes
    assert 4 <= dropped_B.sum() <= 20
    assert some.condition["label"][~dropped_B].tolist() == kept.condition["label"][~dropped_B].tolist()
    with torch.no_grad():
        condition = {"label": torch.from_numpy(some.condition["label"])}
        logits_BTV = policy_of(recipe)(condition, torch.from_numpy(some.context_tokens_BT).long())
    logprobs_BGT = logits_BTV.log_softmax(-1).gather(-1, torch.from_numpy(some.sampled_tokens_BGT).long().mT).mT
    np.testing.assert_allclose(some.behaviour_logprobs_BGT, logprobs_BGT, rtol=1e-4, atol=1e-5)


def test_under_the_published_profile_actors_drop_nothing(recipe: Recipe) -> None:
    changes = {"context.condition_drop": 0.5, "profile": "published"}
    groups = groups_of(roll_out(with_changes(recipe, changes), range(24)))
    assert (groups.condition["label"] < recipe.policy.num_classes).all()


def test_what_was_read_ahead_is_not_read_again_and_gives_the_same_groups(recipe: Recipe) -> None:
    class Counting(NoisePictures):
        num_reads = 0

        def read(self, index: int) -> SourceImage:
            self.num_reads += 1
            return super().read(index)

    source = Counting()
    pipeline = pipeline_of(recipe, source)
    pipeline.read_ahead((3, 4))
    groups = groups_of(pipeline.roll_out(policy_of(recipe), 3, (3, 4), StageClock()))
    assert source.num_reads == 2
    expected = groups_of(roll_out(recipe, (3, 4)))
    np.testing.assert_array_equal(groups.sampled_tokens_BGT, expected.sampled_tokens_BGT)
    groups_of(pipeline.roll_out(policy_of(recipe), 3, (3, 4), StageClock()))
    assert source.num_reads == 4  # what was read ahead serves one ticket


class Spoiled:
    """A tokenizer whose pictures of some groups are no pictures, or a policy that is no longer one."""

    def __init__(self, model: TokenizerModule | PolicyModule, rows: slice) -> None:
        self._model = model
        self._rows = rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def decode(self, tokens_NT: torch.Tensor) -> torch.Tensor:
        return self._spoil(self._model.decode(tokens_NT))

    def __call__(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return self._spoil(self._model(*arguments, **options))

    def _spoil(self, result: torch.Tensor) -> torch.Tensor:
        result = result.clone()
        result[self._rows] = torch.nan
        return result


def test_a_group_whose_reward_is_no_number_is_left_out_and_named(recipe: Recipe) -> None:
    whole = groups_of(roll_out(recipe, range(3)))
    tokenizer = Spoiled(tokenizer_of(recipe), slice(5, 6))  # the second sample of the second group of four
    pipeline = pipeline_of(recipe, tokenizer=tokenizer)
    rollout = pipeline.roll_out(policy_of(recipe), 3, range(3), StageClock())
    groups = groups_of(rollout)
    name = f"picture-{image_of(recipe, 1)}.png"
    assert rollout.skipped == (SkippedImage(1, name, "non-finite reward.mse", is_quarantined=True),)
    assert groups.sample_index_B.tolist() == [0, 2]
    assert groups.image_id_B == (whole.image_id_B[0], whole.image_id_B[2])
    assert groups.condition["label"].tolist() == whole.condition["label"][[0, 2]].tolist()
    np.testing.assert_array_equal(groups.reward_terms["mse"], whole.reward_terms["mse"][[0, 2]])


def test_a_policy_that_gives_no_numbers_makes_no_groups_and_every_image_is_named(recipe: Recipe) -> None:
    pipeline = pipeline_of(recipe, NoisePictures({image_of(recipe, 0)}))
    rollout = pipeline.roll_out(Spoiled(policy_of(recipe), slice(None)), 3, range(3), StageClock())
    assert rollout.groups is None
    assert [(image.sample_index, image.reason, image.is_quarantined) for image in rollout.skipped] == [
        (0, "it is cut short", False),
        (1, "non-finite log-probability", True),
        (2, "non-finite log-probability", True),
    ]
