"""How groups are made: the kinds of a step, what each is measured by, and what cannot be combined."""

from collections import Counter
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe

FREE: dict[str, Any] = {
    "rollout.kind": "free_running",
    "reward.mse": 0,
    "reward.lpips": 0,
    "reward.classifier": 1,
    "reward.classifier_checkpoint": "judge.safetensors",
    "learner.prior": "kl",
    "context.noise": 0,
}
BOTH: dict[str, Any] = {
    "rollout.teacher_forced": 0.75,
    "rollout.free_running": 0.25,
    "reward.classifier": 2,
    "reward.classifier_checkpoint": "judge.safetensors",
    "reward.python": "tests.own_terms:term",
    "learner.images_per_step": 16,
}
CLASSES: dict[str, Any] = {"source": {"kind": "classes"}}
PROMPTS: dict[str, Any] = {"source": {"kind": "prompts", "path": "a", "text_encoder": "words:4"}}
SCORED: dict[str, Any] = {"evaluation.enabled": True, "evaluation.classifier": "judge.safetensors"}


def test_a_ticket_is_of_one_kind_and_each_step_has_the_shares_that_were_asked_for(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, BOTH)
    kinds = [recipe.kind_of(index) for index in range(3 * 16)]
    for step in range(3):
        of_step = kinds[16 * step : 16 * (step + 1)]
        assert Counter(of_step) == {"teacher_forced": 12, "free_running": 4}
        assert all(of_step[first] == of_step[first + 1] for first in range(0, 16, 2))
        assert "free_running" in of_step[:8]  # a rank of two has some of either
        assert "free_running" in of_step[8:]


def test_each_kind_has_its_own_terms_and_credit(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, BOTH | {"advantage.credit": "gradient"})
    forced, free = recipe.of_kind("teacher_forced"), recipe.of_kind("free_running")
    assert forced.reward.weights == {"mse": 1, "lpips": 1}
    assert free.reward.weights == {"classifier": 2, "term": 1}
    assert (forced.advantage.credit, free.advantage.credit) == ("gradient", "sample")
    assert (forced.num_samples_kept, free.num_samples_kept) == (1, 4)
    assert recipe.group_bytes == max(forced.group_bytes, free.group_bytes)


def test_one_kind_is_measured_by_all_terms(tiny_recipe: Recipe) -> None:
    changes = {"reward.classifier": 1, "reward.classifier_checkpoint": "judge.safetensors"}
    recipe = with_changes(tiny_recipe, changes)
    assert recipe.of_kind("teacher_forced").reward.weights == {"mse": 1, "lpips": 1, "classifier": 1}
    assert with_changes(tiny_recipe, FREE).of_kind("free_running").reward.weights == {"classifier": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (FREE | {"reward.mse": 0.5}, r"reward\.mse is 0\.5 .* set reward\.mse=0"),
        (FREE | {"reward.classifier": 0}, r"no term of the reward judges"),
        (FREE | {"reward.classifier_checkpoint": ""}, r"set reward\.classifier_checkpoint, or"),
        (FREE | {"learner.prior": "ce"}, r"set learner\.prior=kl, or learner\.ce_weight=0"),
        (FREE | {"advantage.credit": "token"}, r"set advantage\.credit=sample"),
        (FREE | {"context.noise": 0.5}, r"leave context\.noise out"),
        (FREE | {"group.size": 1}, r"group\.size is 1"),
        ({"rollout.guidance_scale": 2}, r"rollout\.guidance_scale is 2"),
        (CLASSES, r"set rollout\.kind=free_running, or another source"),
        (FREE | CLASSES | SCORED, r"source\.kind is classes.*evaluation\.enabled=false"),
        (FREE | PROMPTS, r"has no classes"),
        (FREE | CLASSES | {"policy.conditioning": "text"}, r"classes has no captions"),
        ({"rollout.teacher_forced": 0.5}, r"must add up to 1"),
        (BOTH | {"rollout.free_running": 0.6}, r"must add up to 1"),
        (BOTH | {"rollout.kind": "free_running"}, r"set one or the other"),
        (BOTH | {"rollout.teacher_forced": 0.9, "rollout.free_running": 0.1}, r"whole number of tickets"),
        (BOTH | {"profile": "published"}, r"profile=corrected, or one rollout\.kind"),
        (BOTH | {"reward": {}}, r"no term of the reward judges"),
        (BOTH | {"record.groups": True}, r"record\.groups=false"),
        (
            {
                "reward.classifier": 1,
                "reward.classifier_checkpoint": "judge.safetensors",
                "context.condition_drop": 0.1,
            },
            r"context\.condition_drop=0",
        ),
        ({"reward.http": {"url": "ftp://judge"}}, r"http"),
    ],
)
def test_what_cannot_be_combined_is_said_with_what_to_change(
    tiny_recipe: Recipe, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        with_changes(tiny_recipe, changes)


def test_what_can_be_combined_is_accepted(tiny_recipe: Recipe) -> None:
    with_changes(tiny_recipe, FREE | {"learner.prior": "ce", "learner.ce_weight": 0})
    with_changes(tiny_recipe, FREE | CLASSES | {"profile": "published"})
    with_changes(tiny_recipe, BOTH | {"context.noise": 0.3, "context.condition_drop": 0.1})
    alone = BOTH | {"rollout.teacher_forced": 1, "rollout.free_running": 0, "reward": {}}
    assert list(with_changes(tiny_recipe, alone).rollout.shares) == ["teacher_forced"]
