"""`plan` on Janus-Pro against counts made elsewhere: FLOPs on the meta device at 384 px and 40 prompt tokens."""

import pytest
from torch._subclasses.fake_tensor import FakeTensorMode

from common.config.load import load_recipe
from common.config.recipe import Recipe
from deploy.planning.actor_counting import actor_work, drawing_work
from deploy.planning.untrained_models import UntrainedModels


def recipe(size: str) -> Recipe:
    changes = [f"policy.size={size}", "policy.prompt_length=40", "reward.lpips=0", "group.size=2"]
    return load_recipe("deploy/recipes/janus_pro_1b_t2i.yaml", changes)


@pytest.mark.parametrize(
    ("size", "forward", "drawing", "learner"),
    [("1B", 1.64, 3.20, 4.92), pytest.param("7B", 7.77, 15.35, 23.3, marks=pytest.mark.chaos)],
)
def test_the_work_of_an_image_is_that_counted_elsewhere(
    size: str, forward: float, drawing: float, learner: float
) -> None:
    with FakeTensorMode():
        models = UntrainedModels.of(recipe(size))
        actor = actor_work(recipe(size), models)
        drawn = drawing_work(recipe(size), models)
    ours = (actor.policy + actor.head) / 1e12
    assert ours == pytest.approx(forward, rel=0.03)
    assert 3 * ours == pytest.approx(learner, rel=0.03)
    assert drawn / 1e12 == pytest.approx(drawing, rel=0.03)
    assert (actor.encode / 1e12, actor.decode / 2e12) == pytest.approx((0.313, 0.570), rel=0.03)


def test_drawing_is_counted_as_if_each_token_were_run() -> None:
    small = load_recipe("deploy/recipes/janus_pro_1b_t2i_tiny.yaml", ["policy.prompt_length=12"])
    with FakeTensorMode():
        models = UntrainedModels.of(small)
        counted = drawing_work(small, models)
        assert counted == _run(small, models)


def _run(small: Recipe, models: UntrainedModels) -> int:
    from deploy.planning.untrained_models import condition, tokens
    from deploy.planning.work_meter import WorkMeter

    with WorkMeter() as meter, meter("all"):
        decoder = models.policy.start_decoding(condition(small, 2))
        decoder.next_logits(None)
        for _ in range(small.num_tokens - 1):
            decoder.next_logits(tokens(2))
    return meter.flops["all"]
