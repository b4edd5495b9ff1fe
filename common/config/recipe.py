"""A recipe: the file that describes a run completely, and the checks across its sections.

Imports neither torch nor ray, so that a bad recipe is refused in milliseconds, before a cluster is paid for.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from common.config.algorithm import (
    AdvantageSection,
    ContextSection,
    GroupSection,
    LearnerSection,
    RewardSection,
)
from common.config.base import Section
from common.config.credit import credit_problems
from common.config.data import SourceSpec
from common.config.evaluation import EvaluationSection
from common.config.methods import DecoderSection, SteSection, method_problems
from common.config.reward import num_handed_over, reward_problems
from common.config.reward_models import RewardModelsSection
from common.config.rollout import Kind, RolloutSection, rollout_problems
from common.config.sampling import SamplingSection
from common.config.service import (
    ActorsSection,
    BufferSection,
    CheckpointSection,
    ComputeSection,
    LogSection,
    MetricsSection,
    PretrainSection,
    RaySection,
    RecordSection,
    RunSection,
)
from common.config.service_problems import service_problems
from common.config.tracking import TrackingSection
from common.models.perceptual.spec import LpipsSpec
from common.models.specs import PerceptualSpec, PolicySpec, TokenizerSpec
from common.text import counted


class Recipe(Section):
    run: RunSection = RunSection()
    """The run and its folder."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness in the run."""
    image_size: int = Field(gt=0)
    """Side of the square images, in pixels."""
    source: SourceSpec
    """Where images come from."""
    tokenizer: TokenizerSpec
    """The frozen tokenizer."""
    policy: PolicySpec
    """The generator to post-train."""
    perceptual: PerceptualSpec = LpipsSpec()
    """The perceptual metric of the reward."""
    profile: Literal["corrected", "published"] = "corrected"
    """corrected: no dropout, and actors drop conditions and record it, so that the policy that samples is the
    policy that learns. published: as in the released scripts, one row per sample, with dropout and condition drop
    only in the learner."""
    context: ContextSection = ContextSection()
    """The teacher-forcing context."""
    rollout: RolloutSection = RolloutSection()
    """How groups are made."""
    group: GroupSection = GroupSection()
    """The samples of one source image."""
    reward: RewardSection = RewardSection()
    """The decoded-image reward."""
    reward_models: RewardModelsSection = RewardModelsSection()
    """The models of preference rewards and scores."""
    advantage: AdvantageSection = AdvantageSection()
    """From rewards to advantages."""
    placement: Literal["split", "colocated"] = "split"
    """Who rolls out. split: reward actors alone, with weights that travel to them. colocated: each learner rank as
    well, with the very policy that it trains, so that no weights travel, and `actors.count` may be 0; the better
    one where all GPUs are alike. It asks for `buffer.max_staleness: 0`, where both give the same results."""
    actors: ActorsSection = ActorsSection()
    """The reward actors."""
    learner: LearnerSection
    """The learner."""
    ste: SteSection = SteSection()
    """For learner.method ste."""
    decoder: DecoderSection = DecoderSection()
    """For learner.method decoder."""
    buffer: BufferSection = BufferSection()
    """The buffer between actors and learner."""
    compute: ComputeSection = ComputeSection()
    """How every process computes."""
    checkpoint: CheckpointSection = CheckpointSection()
    """Resumable state."""
    resume: str = "auto"
    """auto: go on from the newest checkpoint of the run's folder, if any; never: start anew in a folder of
    its own; or the path of a checkpoint to go on from."""
    record: RecordSection = RecordSection()
    """What is kept for `replay`."""
    metrics: MetricsSection = MetricsSection()
    """The Prometheus endpoint."""
    log: LogSection = LogSection()
    """Log lines."""
    tracking: TrackingSection = TrackingSection()
    """TensorBoard, Weights & Biases, MLflow."""
    ray: RaySection = RaySection()
    """The local Ray."""
    sampling: SamplingSection = SamplingSection()
    """Free-running sampling."""
    evaluation: EvaluationSection = EvaluationSection()
    """Scores of the generator."""
    pretrain: PretrainSection | None = None
    """From-scratch training, for `pretrain`."""

    @property
    def grid_size(self) -> int:
        """Tokens along each side of an image."""
        return self.image_size // self.tokenizer.downsampling

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.grid_size**2

    @property
    def processes(self) -> str:
        """Who is at work, as "2 reward actors and 1 learner rank"."""
        ranks = counted(self.learner.num_ranks, "learner rank")
        if self.placement == "colocated":
            ranks += " that also roll out" if self.learner.num_ranks > 1 else " that also rolls out"
        pools = (("reward actor", self.actors.count), ("judge actor", self.reward.actors.count))
        actors = ", ".join(counted(count, name) for name, count in pools if count)
        return f"{actors} and {ranks}" if actors else ranks

    def awaits_judges(self, sample_index: int) -> bool:
        """Whether judge actors complete the groups of this one's ticket."""
        if not self.reward.actors.count:
            return False
        return bool(self.of_kind(self.kind_of(sample_index)).reward.judged_weights)

    @property
    def has_whole_context(self) -> bool:
        """Whether the context is all T tokens instead of the first T-1, as some released trainers have it."""
        return self.profile == "published" and self.policy.released_context_is_whole

    @property
    def tickets_per_step(self) -> int:
        return self.learner.images_per_step // self.actors.images_per_ticket

    @property
    def actor_condition_drop(self) -> float:
        """The share of groups whose condition the actors drop."""
        return self.context.condition_drop if self.profile == "corrected" else 0.0

    @property
    def learned_guidance_scale(self) -> float:
        """The scale of guidance that the log-probabilities of free-running samples are of."""
        return self.rollout.guidance_scale if self.profile == "corrected" else 1.0

    def kind_of(self, sample_index: int) -> Kind:
        """How the run's `sample_index`-th group is made; a ticket's are of one kind."""
        ticket = sample_index // self.actors.images_per_ticket
        return self.rollout.kind_of(ticket % self.tickets_per_step)

    def of_kind(self, kind: Kind) -> Self:
        """The same with groups of one kind alone, and what concerns them."""
        changes: dict[str, Any] = {
            "rollout": RolloutSection(kind=kind, guidance_scale=self.rollout.guidance_scale),
            "reward": self.reward.of_kind(kind) if len(self.rollout.shares) > 1 else self.reward,
        }
        if kind == "free_running":
            changes["advantage"] = self.advantage.model_copy(update={"credit": "sample"})
        return self.model_copy(update=changes)

    def context_noise(self, sample_index: int) -> float:
        """ξ of the run's `sample_index`-th image; the most it can be, where each image draws its own."""
        context, last_step = self.context, max(1, self.learner.num_steps - 1)
        if context.noise_schedule == "constant":
            return context.noise
        progress = min(1.0, sample_index // self.learner.images_per_step / last_step)
        if context.noise_schedule == "rear":
            return context.noise * max(0.0, 1 - 4 * progress / 3)
        return context.noise + progress * (context.noise_end - context.noise)

    @property
    def has_narrow_weights(self) -> bool:
        """Whether actors get bfloat16 where autocast would cast to it anyway, in training as in sampling."""
        return self.compute.autocast == self.sampling.autocast == "bfloat16" and not self.trains_decoder

    @property
    def is_scored_in_learner(self) -> bool:
        """Whether the learner decodes pictures, and compares them with the images that groups then carry."""
        return self.learner.method != "grpo"

    @property
    def is_paper_method(self) -> bool:
        """Whether deploy/local.py spells it out: GRPO on teacher-forced groups, without a regulariser."""
        is_free = "free_running" in self.rollout.shares
        return not (self.is_scored_in_learner or self.learner.embedding_weight or is_free)

    @property
    def trains_decoder(self) -> bool:
        return self.learner.method == "decoder"

    @property
    def has_reward_maps(self) -> bool:
        """Whether groups have maps of the reward's terms over the picture."""
        return self.advantage.credit == "token"

    @property
    def has_code_gradients(self) -> bool:
        """Whether groups have the reward's gradient at the sampled codes."""
        return self.advantage.credit == "gradient"

    @property
    def sampled_weights(self) -> dict[str, float]:
        """Of the terms that samples are compared by: those without a gradient, under credit by gradient."""
        priced = self.reward.differentiable_weights if self.has_code_gradients else {}
        return {name: weight for name, weight in self.reward.weights.items() if name not in priced}

    @property
    def num_samples_drawn(self) -> int:
        """Samples of a group that actors draw; none under learner.method ste, whose codes the learner takes."""
        return 0 if self.learner.method == "ste" else self.group.size

    @property
    def num_samples_kept(self) -> int:
        """Samples of a group whose tokens and log-probabilities travel: all to be compared, or one for the KL."""
        return self.num_samples_drawn if self.sampled_weights or not self.has_code_gradients else 1

    @property
    def num_code_numbers(self) -> int:
        """Numbers per token of credit by gradient: gradient, mean code, spread."""
        return 2 * self.tokenizer.code_size + 1 if self.has_code_gradients else 0

    @property
    def groups_scored_at_once(self) -> int:
        """Groups of a ticket whose samples are in one chunk of the reward."""
        return min(self.actors.images_per_ticket, max(1, self.reward.decode_batch_size // self.group.size))

    @property
    def pictures_scored_at_once(self) -> int:
        """Pictures in memory while they are decoded and scored; with the way back, their activations too."""
        reward, G = self.reward, self.group.size
        if not self.has_code_gradients:
            return self.groups_scored_at_once * G
        groups = min(self.groups_scored_at_once, max(1, reward.gradient_batch_size // G))
        return groups * min(reward.gradient_batch_size, G)

    @property
    def compiled_decode_size(self) -> int | None:
        """Pictures that the decoder takes at once for most of a ticket; None if it is not compiled."""
        return self.pictures_scored_at_once if self.compute.compile else None

    @property
    def buffer_capacity(self) -> int:
        """Groups admitted and not yet published: (max_staleness + 1) steps' worth."""
        return (self.buffer.max_staleness + 1) * self.learner.images_per_step

    @property
    def group_bytes(self) -> int:
        """Bytes of a group: context, target, sampled tokens, log-probs, terms, credit, pixels, condition, ids.

        The condition is a class id, or a caption's float16 features and mask. The ids have room for an image name
        of 256 bytes, such as a path in a folder of pictures. Of several kinds the largest.
        """
        kinds = self.rollout.shares
        if len(kinds) > 1:
            return max(self.of_kind(kind).group_bytes for kind in kinds)
        condition = self.policy.condition_bytes
        num_terms = 0 if self.is_scored_in_learner else len(self.reward.weights)
        pixels = 3 * self.image_size**2 * self.is_scored_in_learner
        num_maps = num_terms if self.has_reward_maps else 0
        a_sample = num_maps * self.num_tokens + num_terms
        of_image = 2 if "teacher_forced" in kinds else 0  # context and target
        a_token = of_image + 2 * self.num_samples_kept + self.num_code_numbers
        numbers = self.num_tokens * a_token + self.group.size * a_sample
        return 4 * numbers + pixels + condition + 280

    @property
    def handed_over_bytes(self) -> int:
        """Bytes of a group's pictures, and of its image, on their way to judge actors; the mean of both kinds."""
        return round(3 * self.image_size**2 * num_handed_over(self))

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self


def _problems(recipe: Recipe) -> Iterator[str]:
    yield from recipe.policy.problems(recipe.source.kind)
    yield from recipe.tokenizer.problems(recipe.image_size)
    yield from credit_problems(recipe)
    yield from method_problems(recipe)
    yield from service_problems(recipe)
    yield from rollout_problems(recipe)
    yield from reward_problems(recipe)
