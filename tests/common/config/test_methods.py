"""What the methods beside GRPO, and the regulariser, cannot be combined with."""

from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe

FREE: dict[str, Any] = {
    "rollout.kind": "free_running",
    "reward": {"mse": 0, "lpips": 0, "classifier": 1, "classifier_checkpoint": "judge.safetensors"},
    "learner.prior": "kl",
    "context.noise": 0,
}
BOTH: dict[str, Any] = {
    "rollout": {"teacher_forced": 0.5, "free_running": 0.5},
    "reward.classifier": 1,
    "reward.classifier_checkpoint": "judge.safetensors",
}
JUDGE: dict[str, Any] = {"reward.classifier": 1, "reward.classifier_checkpoint": "judge.safetensors"}


@pytest.mark.parametrize("method", ["ste", "decoder"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            FREE,
            r"free-running groups \(rollout\.kind or .*leave rollout out, or set learner\.method=grpo",
        ),
        (
            BOTH,
            r"free-running groups \(rollout\.kind or .*leave rollout out, or set learner\.method=grpo",
        ),
        (JUDGE, r"reward\.classifier is set, which has no gradient: leave reward\.classifier out"),
        ({"reward.http": {"url": "http://judge"}}, r"reward\.http is set, .*leave reward\.http out"),
        ({"reward.python": "tests.own_terms:term"}, r"reward\.python is set, .*leave reward\.python out"),
        ({"reward": {"mse": 0, "lpips": 0}}, r"give reward\.mse, reward\.lpips or reward\.l1 one"),
        ({"advantage.credit": "token"}, r"set advantage\.credit=sample"),
        ({"learner.prior": "kl"}, r"set learner\.prior=ce"),
        ({"learner.embedding_weight": 1}, r"set learner\.embedding_weight=0"),
    ],
)
def test_another_method_is_refused_what_it_cannot_use(
    tiny_recipe: Recipe, method: str, changes: dict[str, Any], said: str
) -> None:
    with_changes(tiny_recipe, {"learner.method": method})
    with pytest.raises(ValueError, match=rf"learner\.method is {method}.*{said}"):
        with_changes(tiny_recipe, {"learner.method": method} | changes)


@pytest.mark.parametrize("changes", [FREE, BOTH], ids=["free-running", "both kinds"])
def test_the_embedding_regulariser_is_for_teacher_forced_groups(
    tiny_recipe: Recipe, changes: dict[str, Any]
) -> None:
    with_changes(tiny_recipe, changes)
    said = r"learner\.embedding_weight is 0\.5.*rollout\.kind or rollout\.free_running.*embedding_weight=0, or"
    with pytest.raises(ValueError, match=said):
        with_changes(tiny_recipe, changes | {"learner.embedding_weight": 0.5})
