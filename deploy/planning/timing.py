"""Seconds, the bottleneck and GPU-hours, from counted work and assumed rates, under either placement."""

from dataclasses import dataclass
from math import ceil

from common.config.recipe import Recipe
from deploy.planning.actor_counting import ActorWork
from deploy.planning.counting import PublishedWork, Work
from deploy.planning.gpus import (
    COPY_BYTES_PER_SECOND,
    MEMORY_UTILISATION,
    STATE_BYTES_PER_SECOND,
    STORE_BYTES_PER_SECOND,
    Gpu,
    Utilisation,
)
from deploy.planning.memory import share_of_gpu, state_bytes, weights_bytes

_ADAMW_BYTES = 40  # read or written per parameter: clipping its gradient, then weight, gradient and two moments
SPLIT_STALENESS = 1  # of a split that colocated ranks are compared with: actors and learner overlap


@dataclass(frozen=True)
class Rates:
    """Assumed FLOP per second for each kind of work."""

    transformer: float
    encode: float
    decode: float
    perceptual: float
    judge: float
    memory: float  # bytes per second, of weights and caches that are read for each token


@dataclass(frozen=True)
class StepTime:
    """One step of some processes, and the run."""

    placement: str
    num_actors: int
    num_ranks: int
    max_staleness: int
    actors_seconds: float  # until the step's images are scored
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

    @property
    def best(self) -> StepTime:
        return min(self.recipe, self.other, key=lambda step: step.run_seconds)


def rates(recipe: Recipe, gpu: Gpu, utilisation: Utilisation) -> Rates:
    matrix_peak = gpu.bfloat16 if recipe.compute.autocast == "bfloat16" else gpu.float32
    decode_peak = gpu.bfloat16 if recipe.reward.decode_dtype == "bfloat16" else gpu.tf32
    reached = utilisation.on(gpu, recipe.compute.compile)
    convolution = reached.convolution * gpu.tf32
    judge_peak = gpu.float32 if recipe.reward_models.autocast == "none" else gpu.bfloat16
    return Rates(
        transformer=reached.transformer * matrix_peak,
        encode=convolution,
        decode=reached.decoder * decode_peak,
        perceptual=convolution,
        judge=reached.transformer * judge_peak,
        memory=MEMORY_UTILISATION * gpu.bytes_per_second,
    )


def estimate(recipe: Recipe, work: Work, published: PublishedWork | None, gpu: Gpu, rate: Rates) -> Timing:
    weights = weights_bytes(recipe, work)
    model = _Model(
        recipe,
        image_seconds=_actor_seconds(work.actor, rate) + _other_seconds(work.actor, rate),
        rank_seconds=_rank_seconds(work, rate) / share_of_gpu(recipe.learner.num_gpus),
        copy_seconds=weights / COPY_BYTES_PER_SECOND,
        store_seconds=2 * weights / STORE_BYTES_PER_SECOND,
        checkpoint_seconds=state_bytes(work) / STATE_BYTES_PER_SECOND,
        optimizer_seconds=work.num_trained * _ADAMW_BYTES / (MEMORY_UTILISATION * gpu.bytes_per_second),
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
    )


@dataclass(frozen=True)
class _Model:
    recipe: Recipe
    image_seconds: float  # to roll an image out, on a whole GPU
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

    def of_recipe(self) -> StepTime:
        recipe = self.recipe
        if recipe.placement == "colocated":
            return self.colocated(recipe.learner.num_ranks)
        return self.split(recipe.actors.count, recipe.learner.num_ranks, recipe.buffer.max_staleness)

    def other(self) -> StepTime:
        """On as many GPUs: ranks alone, or the division into actors and ranks that is fastest."""
        recipe = self.recipe
        num_processes = recipe.actors.count + recipe.learner.num_ranks
        if recipe.placement == "split":
            return self.colocated(min(num_processes, recipe.learner.images_per_step))
        divisions = [(num_processes - ranks, ranks) for ranks in range(1, num_processes)] or [(1, 1)]
        splits = [self.split(*division, SPLIT_STALENESS) for division in divisions]
        return min(splits, key=lambda step: step.run_seconds)

    def split(self, num_actors: int, num_ranks: int, max_staleness: int) -> StepTime:
        """A version takes `store_seconds` to the actors, who go on with the last one as long as they may."""
        actors = self.actors_seconds(num_actors, max_staleness)
        learner = self.learner_seconds(num_ranks)
        round_trip = actors + learner + 2 * self.copy_seconds + self.store_seconds
        busiest = max(actors, learner) + self.copy_seconds
        seconds = max(busiest, round_trip / (max_staleness + 1))
        without = max(max(actors, learner), (actors + learner) / (max_staleness + 1))
        gpus = self.num_gpus(num_actors, num_ranks)
        return self._step(
            "split", num_actors, num_ranks, max_staleness, actors, learner, seconds - without, seconds, gpus
        )

    def colocated(self, num_ranks: int) -> StepTime:
        """Each rolls its tickets out, then learns: no weights travel, and nobody waits for other work."""
        share = share_of_gpu(self.recipe.learner.num_gpus)
        tickets = ceil(self.recipe.tickets_per_step / num_ranks)
        rollout = tickets * self.recipe.actors.images_per_ticket * self.image_seconds / share
        learner = self.learner_seconds(num_ranks)
        gpus = num_ranks * (self.recipe.learner.num_gpus or 1)
        return self._step("colocated", 0, num_ranks, 0, rollout, learner, 0.0, rollout + learner, gpus)

    def _step(
        self, placement, num_actors, num_ranks, staleness, actors, learner, weights, seconds, gpus
    ) -> StepTime:
        num_steps = self.recipe.learner.num_steps
        checkpoints = ceil(num_steps / self.recipe.checkpoint.every) * self.checkpoint_seconds
        run_seconds = num_steps * seconds + checkpoints
        counts = (placement, num_actors, num_ranks, staleness)
        hours = gpus * run_seconds / 3600
        return StepTime(*counts, actors, learner, weights, seconds, checkpoints, run_seconds, hours)

    def num_gpus(self, num_actors: int, num_ranks: int) -> float:
        """GPUs in use; a process that reserves none is planned with a whole one."""
        learner, actors = self.recipe.learner, self.recipe.actors
        return num_actors * (actors.num_gpus or 1) + num_ranks * (learner.num_gpus or 1)

    def saturating(self) -> StepTime:
        """With the fewest actors that are as fast as the learner, or as many as there are tickets."""
        num_ranks, staleness = self.recipe.learner.num_ranks, self.recipe.buffer.max_staleness
        num_actors, most = 1, self.num_tickets(staleness)
        while self.actors_seconds(num_actors) > self.learner_seconds(num_ranks) and num_actors < most:
            num_actors += 1
        return self.split(num_actors, num_ranks, staleness)


def _actor_seconds(work: ActorWork | PublishedWork, rate: Rates) -> float:
    return (
        work.encode / rate.encode
        + (work.policy + work.head) / rate.transformer
        + work.decode / rate.decode
        + work.perceptual / rate.perceptual
    )


def _other_seconds(work: ActorWork, rate: Rates) -> float:
    """Drawing and judging, and under credit by gradient the way back.

    That one is as fast as the way there: the same convolutions, on the average of decoder and metric.
    """
    forward = work.decode + work.perceptual
    seconds = work.decode / rate.decode + work.perceptual / rate.perceptual
    back = work.gradient * seconds / forward if forward else 0.0
    drawing = max(work.draw / rate.transformer, work.draw_bytes / rate.memory)
    return drawing + work.judge / rate.judge + back + work.price / rate.transformer


def _rank_seconds(work: Work, rate: Rates) -> float:
    learner = work.learner
    of_policy = learner.forward + learner.backward + learner.recomputed
    return of_policy / rate.transformer + learner.decode / rate.decode + learner.perceptual / rate.perceptual


def _published_seconds(recipe: Recipe, published: PublishedWork, rate: Rates) -> float:
    """Of the run, on one GPU."""
    num_images = recipe.learner.num_steps * recipe.learner.images_per_step
    rows = published.forward + published.backward
    return num_images * (_actor_seconds(published, rate) + rows / rate.transformer)
