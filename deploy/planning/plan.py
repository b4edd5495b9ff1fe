"""`plan`: a run's arithmetic, memory, traffic and time, from the recipe alone."""

from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from common.config.recipe import Recipe
from deploy.planning.counting import PublishedWork, Work, count_work, published_work
from deploy.planning.gpus import Gpu, Reached, Utilisation
from deploy.planning.memory import (
    ProcessMemory,
    SamplingMemory,
    StoreBytes,
    actor_memory,
    actor_problem,
    judge_memory,
    judge_problem,
    learner_memory,
    learner_problem,
    sampling_memory,
    sampling_problem,
    store_bytes,
    store_problem,
)
from deploy.planning.rates import Rates, rates
from deploy.planning.timing import Timing, estimate


@dataclass(frozen=True)
class Plan:
    recipe: Recipe
    gpu: Gpu
    utilisation: Reached
    rates: Rates
    work: Work
    published: PublishedWork | None  # None where the released scripts do something else altogether
    actor_memory: ProcessMemory
    learner_memory: ProcessMemory
    judge_memory: ProcessMemory | None  # None without judge actors, or where nobody knows what they hold
    sampling_memory: SamplingMemory
    store: StoreBytes
    timing: Timing
    price: float | None = None  # of an hour of a GPU, in any currency

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not fit, one sentence each, with the key to change."""
        has_actors = self.recipe.actors.count > 0
        found = (
            actor_problem(self.recipe, self.actor_memory) if has_actors else None,
            learner_problem(self.recipe, self.learner_memory),
            judge_problem(self.recipe, self.judge_memory) if self.judge_memory else None,
            store_problem(self.recipe, self.store),
            sampling_problem(self.recipe, self.sampling_memory),
        )
        return tuple(problem for problem in found if problem)

    @property
    def actor_flops(self) -> int:
        """Per source image."""
        return self.work.actor.flops

    @property
    def learner_flops(self) -> int:
        """Per source image, including the recomputation in the backward pass."""
        return self.work.learner.flops

    @property
    def judge_flops(self) -> int:
        """Per source image, of judge actors."""
        return self.work.judge.flops

    @property
    def published_flops(self) -> int | None:
        """Per source image in the released scripts, without their unused KL pass."""
        return None if self.published is None else self.published.actor_flops + self.published.learner_flops

    def as_json(self) -> dict[str, Any]:
        """Everything in the text, and the recipe's name instead of the recipe."""
        parts: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if is_dataclass(getattr(self, field.name))
        }
        return {
            "run": self.recipe.run.name,
            "is_measured": False,
            "problems": list(self.problems),
            "actor_flops": self.actor_flops,
            "learner_flops": self.learner_flops,
            "judge_flops": self.judge_flops,
            "published_flops": self.published_flops,
            "actor_bytes": self.actor_memory.total,
            "learner_bytes": self.learner_memory.total,
            "judge_bytes": self.judge_memory.total if self.judge_memory else None,
            "price": self.price,
            **{name: asdict(part) for name, part in parts.items()},
        }


def make_plan(recipe: Recipe, gpu: Gpu, utilisation: Utilisation, price: float | None = None) -> Plan:
    work = count_work(recipe)
    is_paper_s = not recipe.is_scored_in_learner and "free_running" not in recipe.rollout.shares
    published = published_work(work.actor, recipe) if is_paper_s else None
    rate = rates(recipe, gpu, utilisation)
    of_actor = actor_memory(recipe, work, gpu)
    return Plan(
        recipe=recipe,
        gpu=gpu,
        utilisation=utilisation.on(gpu, recipe.compute.compile),
        rates=rate,
        work=work,
        published=published,
        actor_memory=of_actor,
        learner_memory=learner_memory(recipe, work, gpu),
        judge_memory=judge_memory(recipe, work, gpu),
        sampling_memory=sampling_memory(work, of_actor),
        store=store_bytes(recipe, work),
        timing=estimate(recipe, work, published, gpu, rate),
        price=price,
    )
