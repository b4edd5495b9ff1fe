"""Seconds, the bottleneck and GPU-hours, from counted work and assumed rates, under either placement."""

from dataclasses import dataclass
from math import ceil

from common.config.recipe import Recipe
from deploy.planning.counting import PublishedWork, Work
from deploy.planning.gpus import (
    COPY_BYTES_PER_SECOND,
    MEMORY_UTILISATION,
    STATE_BYTES_PER_SECOND,
    STORE_BYTES_PER_SECOND,
    Gpu,
)
from deploy.planning.memory import share_of_gpu, state_bytes, weights_bytes
from deploy.planning.rates import (
    Rates,
    forward_seconds,
    judge_seconds,
    rank_seconds,
    rollout_seconds,
    updated_bytes,
)

_AS_FAST = 1.05  # times the seconds of the fastest: no slower than that
SPLIT_STALENESS = 1  # of a split that colocated ranks are compared with: actors and learner overlap


@dataclass(frozen=True)
class StepTime:
    """One step of some processes, and the run."""

    placement: str
    num_actors: int
    num_ranks: int
    max_staleness: int
    actors_seconds: float  # until the step's images are rolled out, and scored unless judge actors do that
    judges_seconds: float  # of judge actors for them
    scored_seconds: float  # until the last is scored: judges work while others are rolled out
    learner_seconds: float  # forward, backward, optimizer
    weights_seconds: float  # by which the weights' way makes the step longer
    step_seconds: float
    checkpoints_seconds: float  # of the run, in which ranks give their state away
    run_seconds: float
    gpu_hours: float

    @property
    def name(self) -> str:
        if self.placement == "colocated":
            return f"{self.num_ranks} colocated"
        return f"{self.num_actors} + {self.num_ranks}, S {self.max_staleness}"


@dataclass(frozen=True)
class JudgeTiming:
    ticket_seconds: float  # of one judge actor
    enough: int  # judge actors: with more a step is not a twentieth shorter


@dataclass(frozen=True)
class Timing:
    actor_seconds_per_image: float
    learner_rank_seconds_per_image: float
    copy_seconds: float  # of a version between GPU and pinned memory: the learner waits for it
    store_seconds: float  # of a version through the object store, in and out, beside the training
    checkpoint_seconds: float  # that one holds the ranks up
    optimizer_seconds: float
    recipe: StepTime
    saturating: StepTime  # split, with the fewest actors that keep the recipe's ranks busy
    other: StepTime  # the recipe's GPUs under the other placement; split: the best division of them
    actors_per_learner: float  # a step's seconds with one actor over the learner's
    most_useful_actors: int  # there are not enough tickets for more
    published_run_seconds: float | None  # the published arithmetic on the recipe's number of GPUs
    judges: JudgeTiming | None = None  # of judge actors whose models are known

    @property
    def best(self) -> StepTime:
        return min(self.recipe, self.other, key=lambda step: step.run_seconds)


def estimate(recipe: Recipe, work: Work, published: PublishedWork | None, gpu: Gpu, rate: Rates) -> Timing:
    weights = weights_bytes(recipe, work)
    model = _Model(
        recipe,
        image_seconds=rollout_seconds(work.actor, rate),
        judge_seconds=judge_seconds(work, rate) / share_of_gpu(recipe.reward.actors.num_gpus),
        rank_seconds=rank_seconds(work, rate) / share_of_gpu(recipe.learner.num_gpus),
        copy_seconds=weights / COPY_BYTES_PER_SECOND,
        store_seconds=2 * weights / STORE_BYTES_PER_SECOND,
        checkpoint_seconds=state_bytes(work) / STATE_BYTES_PER_SECOND,
        optimizer_seconds=updated_bytes(work) / (MEMORY_UTILISATION * gpu.bytes_per_second),
    )
    of_recipe = model.of_recipe()
    num_ranks = recipe.learner.num_ranks
    published_seconds = None if published is None else _published_seconds(recipe, published, rate)
    return Timing(
        actor_seconds_per_image=model.actor_seconds,
        learner_rank_seconds_per_image=model.rank_seconds,
        copy_seconds=model.copy_seconds,
        store_seconds=model.store_seconds,
        checkpoint_seconds=model.checkpoint_seconds,
        optimizer_seconds=model.optimizer_seconds,
        recipe=of_recipe,
        saturating=model.saturating(),
        other=model.other(),
        actors_per_learner=model.actors_seconds(1) / model.learner_seconds(num_ranks),
        most_useful_actors=model.num_tickets(recipe.buffer.max_staleness),
        published_run_seconds=published_seconds
        and published_seconds / model.num_gpus(recipe.actors.count, num_ranks),
        judges=model.judges(),
    )


@dataclass(frozen=True)
class _Model:
    recipe: Recipe
    image_seconds: float  # to roll an image out, on a whole GPU
    judge_seconds: float  # of a judge actor, for an image's samples
    rank_seconds: float  # to learn from an image
    copy_seconds: float
    store_seconds: float
    checkpoint_seconds: float
    optimizer_seconds: float

    @property
    def actor_seconds(self) -> float:
        return self.image_seconds / share_of_gpu(self.recipe.actors.num_gpus)

    def num_tickets(self, max_staleness: int) -> int:
        """Tickets that actors can hold while a step is learned from: the most actors that can be busy."""
        return max(1, max_staleness) * self.recipe.tickets_per_step

    def learner_seconds(self, num_ranks: int) -> float:
        images_a_rank = ceil(self.recipe.learner.images_per_step / num_ranks)
        return images_a_rank * self.rank_seconds + self.optimizer_seconds

    def actors_seconds(self, num_actors: int, max_staleness: int | None = None) -> float:
        """Seconds of the actors for a step's images. On-policy, a step's last tickets leave some actors idle."""
        staleness = self.recipe.buffer.max_staleness if max_staleness is None else max_staleness
        tickets_an_actor = self.recipe.tickets_per_step / min(num_actors, self.num_tickets(staleness))
        if staleness == 0:
            tickets_an_actor = ceil(tickets_an_actor)
        return tickets_an_actor * self.recipe.actors.images_per_ticket * self.actor_seconds

    def judges_seconds(self, num_judges: int, max_staleness: int) -> float:
        """Of judge actors for a step's images. 0 without any, or where nobody knows."""
        if not (num_judges and self.judge_seconds):
            return 0.0
        tickets_a_judge = self.recipe.tickets_per_step / min(num_judges, self.num_tickets(max_staleness))
        if max_staleness == 0:
            tickets_a_judge = ceil(tickets_a_judge)
        return tickets_a_judge * self.recipe.actors.images_per_ticket * self.judge_seconds

    def of_recipe(self, num_judges: int | None = None) -> StepTime:
        recipe = self.recipe
        if recipe.placement == "colocated":
            return self.colocated(recipe.learner.num_ranks, num_judges)
        staleness = recipe.buffer.max_staleness
        return self.split(recipe.actors.count, recipe.learner.num_ranks, staleness, num_judges)

    def judges(self) -> JudgeTiming | None:
        """Given the recipe's actors and ranks."""
        if not self.judge_seconds:
            return None
        num_judges, most = 1, self.num_tickets(self.recipe.buffer.max_staleness)
        limit = _AS_FAST * self.of_recipe(most).step_seconds
        while self.of_recipe(num_judges).step_seconds > limit:
            num_judges += 1
        return JudgeTiming(self.recipe.actors.images_per_ticket * self.judge_seconds, num_judges)

    def other(self) -> StepTime:
        """On as many GPUs: ranks alone, or the division into actors and ranks that is fastest."""
        recipe = self.recipe
        num_processes = recipe.actors.count + recipe.learner.num_ranks
        if recipe.placement == "split":
            return self.colocated(min(num_processes, recipe.learner.images_per_step))
        divisions = [(num_processes - ranks, ranks) for ranks in range(1, num_processes)] or [(1, 1)]
        splits = [self.split(*division, SPLIT_STALENESS) for division in divisions]
        return min(splits, key=lambda step: step.run_seconds)

    def split(
        self, num_actors: int, num_ranks: int, max_staleness: int, num_judges: int | None = None
    ) -> StepTime:
        """A version takes `store_seconds` to the actors, who go on with the last one as long as they may."""
        scoring = self._scoring(
            self.actors_seconds(num_actors, max_staleness), self.actor_seconds, max_staleness, num_judges
        )
        learner = self.learner_seconds(num_ranks)
        round_trip = scoring.in_all + learner + 2 * self.copy_seconds + self.store_seconds
        busiest = max(scoring.actors, scoring.judges, learner)
        seconds = max(busiest + self.copy_seconds, round_trip / (max_staleness + 1))
        without = max(busiest, (scoring.in_all + learner) / (max_staleness + 1))
        gpus = self.num_gpus(num_actors, num_ranks)
        counts = ("split", num_actors, num_ranks, max_staleness)
        return self._step(counts, scoring, learner, seconds - without, seconds, gpus)

    def colocated(self, num_ranks: int, num_judges: int | None = None) -> StepTime:
        """Each rolls its tickets out, then learns: no weights travel, and no rank waits for other work."""
        image_seconds = self.image_seconds / share_of_gpu(self.recipe.learner.num_gpus)
        tickets = ceil(self.recipe.tickets_per_step / num_ranks)
        rollout = tickets * self.recipe.actors.images_per_ticket * image_seconds
        scoring = self._scoring(rollout, image_seconds, 0, num_judges)
        learner = self.learner_seconds(num_ranks)
        counts = ("colocated", 0, num_ranks, 0)
        return self._step(counts, scoring, learner, 0.0, scoring.in_all + learner, self.num_gpus(0, num_ranks))

    def _scoring(
        self, actors: float, image_seconds: float, max_staleness: int, num_judges: int | None
    ) -> "_Scoring":
        """Of a step's images. The judges wait for the first ticket, and the last ticket waits for its judge."""
        num_judges = self.recipe.reward.actors.count if num_judges is None else num_judges
        judges, a_ticket = self.judges_seconds(num_judges, max_staleness), self.recipe.actors.images_per_ticket
        if not judges:
            return _Scoring(actors, 0.0, actors)
        in_all = max(actors + a_ticket * self.judge_seconds, a_ticket * image_seconds + judges)
        return _Scoring(actors, judges, in_all)

    def _step(
        self,
        counts: tuple[str, int, int, int],
        scoring: "_Scoring",
        learner: float,
        weights: float,
        seconds: float,
        gpus: float,
    ) -> StepTime:
        num_steps = self.recipe.learner.num_steps
        checkpoints = ceil(num_steps / self.recipe.checkpoint.every) * self.checkpoint_seconds
        run_seconds = num_steps * seconds + checkpoints
        parts = (scoring.actors, scoring.judges, scoring.in_all, learner, weights, seconds)
        return StepTime(*counts, *parts, checkpoints, run_seconds, gpus * run_seconds / 3600)

    def num_gpus(self, num_actors: int, num_ranks: int) -> float:
        """GPUs in use; a process that reserves none is planned with a whole one, unless it has no known model."""
        learner, actors, judges = self.recipe.learner, self.recipe.actors, self.recipe.reward.actors
        of_judges = judges.count * (judges.num_gpus or bool(self.judge_seconds))
        return num_actors * (actors.num_gpus or 1) + num_ranks * (learner.num_gpus or 1) + of_judges

    def saturating(self) -> StepTime:
        """With the fewest actors that are as fast as the learner, or as many as there are tickets."""
        num_ranks, staleness = self.recipe.learner.num_ranks, self.recipe.buffer.max_staleness
        num_actors, most = 1, self.num_tickets(staleness)
        while self.actors_seconds(num_actors) > self.learner_seconds(num_ranks) and num_actors < most:
            num_actors += 1
        return self.split(num_actors, num_ranks, staleness)


@dataclass(frozen=True)
class _Scoring:
    """Seconds for a step's images."""

    actors: float
    judges: float
    in_all: float  # until the last one is scored


def _published_seconds(recipe: Recipe, published: PublishedWork, rate: Rates) -> float:
    """Of the run, on one GPU."""
    num_images = recipe.learner.num_steps * recipe.learner.images_per_step
    rows = published.forward + published.backward
    return num_images * (forward_seconds(published, rate) + rows / rate.transformer)
