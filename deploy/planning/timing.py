"""Seconds, the bottleneck and GPU-hours, from counted work and assumed rates."""

from dataclasses import dataclass
from math import ceil

from common.config.recipe import Recipe
from deploy.planning.counting import ActorWork, PublishedWork, Work
from deploy.planning.gpus import MEMORY_UTILISATION, WEIGHTS_BYTES_PER_SECOND, Gpu, Utilisation
from deploy.planning.memory import share_of_gpu

_ADAMW_BYTES = 40  # read or written per parameter: clipping its gradient, then weight, gradient and two moments


@dataclass(frozen=True)
class Rates:
    """Assumed FLOP per second for each kind of work."""

    transformer: float
    encode: float
    decode: float
    perceptual: float


@dataclass(frozen=True)
class StepTime:
    """One step with a given number of reward actors, and the run."""

    num_actors: int
    actors_seconds: float  # until the step's images are scored
    learner_seconds: float  # forward, backward, optimizer and publication
    step_seconds: float
    run_seconds: float
    gpu_hours: float


@dataclass(frozen=True)
class Timing:
    actor_seconds_per_image: float
    learner_rank_seconds_per_image: float
    weights_seconds: float  # per version, for the learner to publish and for an actor to load
    optimizer_seconds: float
    takes_turns: bool  # max_staleness 0: actors and learner never work at the same time
    recipe: StepTime
    saturating: StepTime  # with the fewest actors that keep the learner busy
    actors_per_learner: float  # a step's seconds with one actor over the learner's, both without the weights
    most_useful_actors: int  # there are not enough tickets for more
    published_run_seconds: float  # the published arithmetic on the recipe's number of GPUs


def rates(recipe: Recipe, gpu: Gpu, utilisation: Utilisation) -> Rates:
    matrix_peak = gpu.bfloat16 if recipe.compute.autocast == "bfloat16" else gpu.float32
    decode_peak = gpu.bfloat16 if recipe.reward.decode_dtype == "bfloat16" else gpu.tf32
    convolution = utilisation.convolution * gpu.tf32
    return Rates(
        transformer=utilisation.transformer * matrix_peak,
        encode=convolution,
        decode=utilisation.convolution * decode_peak,
        perceptual=convolution,
    )


def estimate(recipe: Recipe, work: Work, published: PublishedWork, gpu: Gpu, rate: Rates) -> Timing:
    model = _Model(
        recipe,
        actor_seconds=(_actor_seconds(work.actor, rate) + _gradient_seconds(work.actor, rate))
        / share_of_gpu(recipe.actors.num_gpus),
        rank_seconds=_rank_flops(work) / rate.transformer / share_of_gpu(recipe.learner.num_gpus),
        weights_seconds=work.policy_bytes / WEIGHTS_BYTES_PER_SECOND,
        optimizer_seconds=work.num_parameters * _ADAMW_BYTES / (MEMORY_UTILISATION * gpu.bytes_per_second),
    )
    of_recipe = model.step(recipe.actors.count)
    rows = published.forward + published.backward
    published_seconds = _actor_seconds(published, rate) + rows / rate.transformer
    num_images = recipe.learner.num_steps * recipe.learner.images_per_step
    return Timing(
        actor_seconds_per_image=model.actor_seconds,
        learner_rank_seconds_per_image=model.rank_seconds,
        weights_seconds=model.weights_seconds,
        optimizer_seconds=model.optimizer_seconds,
        takes_turns=recipe.buffer.max_staleness == 0,
        recipe=of_recipe,
        saturating=model.saturating(),
        actors_per_learner=(model.actors_seconds(1) - model.weights_seconds)
        / (model.learner_seconds - model.weights_seconds),
        most_useful_actors=model.num_tickets,
        published_run_seconds=num_images * published_seconds / model.num_gpus(recipe.actors.count),
    )


@dataclass(frozen=True)
class _Model:
    recipe: Recipe
    actor_seconds: float  # per image
    rank_seconds: float  # per image
    weights_seconds: float
    optimizer_seconds: float

    @property
    def num_tickets(self) -> int:
        """Tickets that actors can hold while a step is learned from: the most actors that can be busy."""
        return max(1, self.recipe.buffer.max_staleness) * self.recipe.tickets_per_step

    @property
    def learner_seconds(self) -> float:
        images_a_rank = ceil(self.recipe.learner.images_per_step / self.recipe.learner.num_ranks)
        return images_a_rank * self.rank_seconds + self.optimizer_seconds + self.weights_seconds

    def actors_seconds(self, num_actors: int) -> float:
        """Seconds of the actors for a step's images. On-policy, a step's last tickets leave some actors idle."""
        busy = min(num_actors, self.num_tickets)
        tickets_an_actor = self.recipe.tickets_per_step / busy
        if self.recipe.buffer.max_staleness == 0:
            tickets_an_actor = ceil(tickets_an_actor)
        return tickets_an_actor * self.recipe.actors.images_per_ticket * self.actor_seconds + self.weights_seconds

    def step(self, num_actors: int) -> StepTime:
        recipe = self.recipe
        actors_seconds, learner_seconds = self.actors_seconds(num_actors), self.learner_seconds
        on_policy = recipe.buffer.max_staleness == 0
        seconds = actors_seconds + learner_seconds if on_policy else max(actors_seconds, learner_seconds)
        run_seconds = recipe.learner.num_steps * seconds
        gpu_hours = self.num_gpus(num_actors) * run_seconds / 3600
        return StepTime(num_actors, actors_seconds, learner_seconds, seconds, run_seconds, gpu_hours)

    def num_gpus(self, num_actors: int) -> float:
        """GPUs in use; a process that reserves none is planned with a whole one."""
        learner, actors = self.recipe.learner, self.recipe.actors
        return num_actors * (actors.num_gpus or 1) + learner.num_ranks * (learner.num_gpus or 1)

    def saturating(self) -> StepTime:
        """With the fewest actors that are as fast as the learner, or as many as there are tickets."""
        num_actors = 1
        while self.actors_seconds(num_actors) > self.learner_seconds and num_actors < self.num_tickets:
            num_actors += 1
        return self.step(num_actors)


def _actor_seconds(work: ActorWork | PublishedWork, rate: Rates) -> float:
    return (
        work.encode / rate.encode
        + (work.policy + work.head) / rate.transformer
        + work.decode / rate.decode
        + work.perceptual / rate.perceptual
    )


def _gradient_seconds(work: ActorWork, rate: Rates) -> float:
    """The way back is as fast as the way there: the same convolutions, on the average of decoder and metric."""
    forward = work.decode + work.perceptual
    seconds = work.decode / rate.decode + work.perceptual / rate.perceptual
    back = work.gradient * seconds / forward if forward else 0.0
    return back + work.price / rate.transformer


def _rank_flops(work: Work) -> int:
    return work.learner.forward + work.learner.backward + work.learner.recomputed
