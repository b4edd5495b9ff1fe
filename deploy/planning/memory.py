"""The memory of processes on their GPUs and of Ray's object store: whether it fits, and what to change if not."""

from dataclasses import dataclass

from common.config.recipe import Recipe
from deploy.planning.counting import Work
from deploy.planning.gpus import GIGA, Gpu

CONTEXT_BYTES = GIGA  # CUDA context and kernels of a process; assumed
USABLE = 0.9  # of a GPU's memory; the rest goes to fragmentation and cuDNN's scratch; assumed
VERSIONS_ALIVE = 2  # of the weights: the published one, and the next during its publication
_BYTES_A_NUMBER = 4  # weights, gradients and AdamW's state are float32


def weights_bytes(recipe: Recipe, work: Work) -> int:
    """Of a version as it travels: nearly all of it is linear layers, which travel as autocast uses them."""
    return work.trained_bytes // 2 if recipe.has_narrow_weights else work.trained_bytes


def state_bytes(work: Work) -> int:
    """Of a checkpoint: what is trained and AdamW's two moments, and what changes beside the decoder."""
    beside = work.num_averaged + 3 * work.num_discriminating
    return work.trained_bytes + (2 * work.num_trained + beside) * _BYTES_A_NUMBER


_ACTOR_KEYS = {
    "encode": "actors.images_per_ticket",
    "policy": "actors.images_per_ticket",
    "sample": "actors.images_per_ticket",
    "decode": "reward.decode_batch_size",
    "perceptual": "reward.decode_batch_size",
    "score": "reward.decode_batch_size",
    "gradient": "reward.gradient_batch_size",
    "price": "actors.images_per_ticket",
}


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of one process. Temporary tensors are counted at their worst moment, `working_stage`."""

    policy: int  # in a rank, what it trains
    frozen: (
        int  # tokenizer, perceptual metric and judges; in a learner rank, the KL prior's reference, the average
    )
    gradients: int  # in DDP's buckets
    adamw: int
    activations: int  # kept for the backward pass of a micro-batch
    working: int  # other tensors of the stage
    working_stage: str
    context: int
    limit: int  # USABLE of its GPU, or of its share of one
    checkpointed_total: int = 0  # of a learner rank, with compute.activation_checkpointing

    @property
    def total(self) -> int:
        return self.fixed + self.activations + self.working

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on a batch size."""
        return self.policy + self.frozen + self.gradients + self.adamw + self.context


def actor_memory(recipe: Recipe, work: Work, gpu: Gpu) -> ProcessMemory:
    peaks = work.actor.peak_bytes
    stage = max(peaks, key=lambda name: peaks[name])
    return ProcessMemory(
        policy=_snapshot_bytes(recipe, work),
        frozen=work.frozen_bytes,
        gradients=0,
        adamw=0,
        activations=0,
        working=peaks[stage],
        working_stage=stage,
        context=CONTEXT_BYTES,
        limit=_limit(gpu, recipe.actors.num_gpus),
    )


def judge_memory(recipe: Recipe, work: Work, gpu: Gpu) -> ProcessMemory | None:
    """None where there are no judge actors, or nobody knows what they hold."""
    if not work.judge_bytes:
        return None
    return ProcessMemory(
        policy=0,
        frozen=work.judge_bytes,
        gradients=0,
        adamw=0,
        activations=0,
        working=work.judge.peak_bytes,
        working_stage="score",
        context=CONTEXT_BYTES,
        limit=_limit(gpu, recipe.reward.actors.num_gpus),
    )


def _snapshot_bytes(recipe: Recipe, work: Work) -> int:
    """Of the policy in a reward actor, whose weights are those that travel, where it is what trains."""
    if recipe.trains_decoder:
        return work.policy_bytes
    return work.policy_bytes - work.trained_bytes + weights_bytes(recipe, work)


def learner_memory(recipe: Recipe, work: Work, gpu: Gpu) -> ProcessMemory:
    one, beside = work.num_trained * _BYTES_A_NUMBER, work.num_discriminating * _BYTES_A_NUMBER
    sizes = work.learner
    recipes_own = sizes.checkpointed_bytes if recipe.compute.activation_checkpointing else sizes.plain_bytes
    activations, working, stage = recipes_own.kept, recipes_own.on_top, "forward and backward"
    if one > activations + working:  # AdamW needs a square root of each number, after the activations are freed
        activations, working, stage = 0, one, "optimizer"
    model = (work.rank_bytes or work.policy_bytes) + beside
    frozen = work.scoring_bytes
    if recipe.learner.prior == "kl":
        frozen += work.trained_bytes  # the reference shares what does not train
    checkpointed = sizes.checkpointed_bytes
    if recipe.placement == "colocated":  # it rolls out between two steps, when no activations are kept
        frozen += work.frozen_bytes
        if recipe.trains_decoder:  # it rolls out with the tokenizer that it trains
            frozen += work.policy_bytes - work.rank_bytes
        peaks = work.actor.peak_bytes
        rolls_out = max(peaks, key=lambda name: peaks[name])
        if peaks[rolls_out] > activations + working:
            activations, working, stage = 0, peaks[rolls_out], rolls_out
    fixed = model + frozen + 3 * (one + beside) + CONTEXT_BYTES
    return ProcessMemory(
        policy=model,
        frozen=frozen,
        gradients=one + beside,
        adamw=2 * (one + beside),
        activations=activations,
        working=working,
        working_stage=stage,
        context=CONTEXT_BYTES,
        limit=_limit(gpu, recipe.learner.num_gpus),
        checkpointed_total=fixed + max(one, checkpointed.kept + checkpointed.on_top),
    )


def _limit(gpu: Gpu, num_gpus: float) -> int:
    return int(USABLE * gpu.memory_bytes * share_of_gpu(num_gpus))


def share_of_gpu(num_gpus: float) -> float:
    """A process's share of one GPU; a process that reserves none is planned with a whole one."""
    return num_gpus if 0 < num_gpus < 1 else 1.0


def actor_problem(recipe: Recipe, memory: ProcessMemory) -> str | None:
    """What does not fit in a reward actor, and the key to change; None if everything fits."""
    if memory.total <= memory.limit:
        return None
    said = f"a reward actor needs {_gb(memory.total)} of the {_gb(memory.limit)} that it can use"
    if memory.fixed > memory.limit:
        return f"{said}, and its models alone {_gb(memory.fixed)}: {_larger_gpu('actors', recipe.actors.num_gpus)}"
    key = _working_key(recipe, memory)
    if key == "actors.images_per_ticket":
        return f"{said}, most at `{memory.working_stage}`: lower {key} ({recipe.actors.images_per_ticket})"
    at_once = recipe.pictures_scored_at_once
    if at_once > (1 if recipe.has_code_gradients else recipe.group.size):
        return f"{said}, most at `{memory.working_stage}`: lower {key} ({at_once} pictures at once)"
    bfloat16 = "set reward.decode_dtype=bfloat16, or " if _decodes_float32(recipe, memory) else ""
    larger = _larger_gpu("actors", recipe.actors.num_gpus)
    what = "picture" if recipe.has_code_gradients else "group"
    return f"{said}, most at `{memory.working_stage}` of one {what}: {bfloat16}{larger}"


def judge_problem(recipe: Recipe, memory: ProcessMemory) -> str | None:
    """As `actor_problem`, for a judge actor."""
    if memory.total <= memory.limit:
        return None
    said = f"a judge actor needs {_gb(memory.total)} of the {_gb(memory.limit)} that it can use"
    larger = _larger_gpu("reward.actors", recipe.reward.actors.num_gpus)
    if memory.fixed > memory.limit:
        return f"{said}, and its models alone {_gb(memory.fixed)}: {larger}"
    at_once = recipe.groups_scored_at_once * recipe.group.size
    if at_once > recipe.group.size:
        return f"{said}: lower reward.decode_batch_size ({at_once} pictures at once)"
    at_once = min(at_once, recipe.reward_models.batch_size)
    return f"{said}: lower reward_models.batch_size ({at_once} pictures at once), or {larger}"


def _working_key(recipe: Recipe, memory: ProcessMemory) -> str:
    key = _ACTOR_KEYS[memory.working_stage]
    return "reward.gradient_batch_size" if recipe.has_code_gradients and key.startswith("reward.") else key


def _decodes_float32(recipe: Recipe, memory: ProcessMemory) -> bool:
    return memory.working_stage in ("decode", "gradient") and recipe.reward.decode_dtype == "float32"


@dataclass(frozen=True)
class SamplingMemory:
    """Of free-running pictures, beside the models of a reward actor."""

    a_picture: int  # bytes, while its tokens are drawn
    most: int  # pictures at once that fit


def sampling_memory(work: Work, actor: ProcessMemory) -> SamplingMemory:
    return SamplingMemory(work.drawn_bytes, max(0, actor.limit - actor.fixed) // work.drawn_bytes)


def sampling_problem(recipe: Recipe, memory: SamplingMemory) -> str | None:
    """Set if fewer pictures fit than the recipe draws at once; where none does, the actor's problem says why."""
    if not memory.most or recipe.sampling.batch_size <= memory.most:
        return None
    return (
        f"{recipe.sampling.batch_size} free-running pictures at once take {_gb(memory.a_picture)} each: set "
        f"sampling.batch_size={memory.most} or less"
    )


def learner_problem(recipe: Recipe, memory: ProcessMemory) -> str | None:
    """As `actor_problem`, for a learner rank."""
    if memory.total <= memory.limit:
        return None
    said = f"a learner rank needs {_gb(memory.total)} of the {_gb(memory.limit)} that it can use"
    if memory.fixed > memory.limit or memory.working_stage == "optimizer":
        always = memory.fixed + (memory.working if memory.working_stage == "optimizer" else 0)
        return (
            f"{said}, {_gb(always)} for weights, gradients and AdamW, of which every rank holds all: "
            f"{_larger_gpu('learner', recipe.learner.num_gpus)}"
        )
    if memory.working_stage in _ACTOR_KEYS:
        return f"{said}, most at `{memory.working_stage}` of its rollouts: lower {_working_key(recipe, memory)}"
    ways = [f"lower learner.micro_batch_size ({recipe.learner.micro_batch_size})"]
    if recipe.learner.micro_batch_size == 1:
        ways = [f"lower learner.logit_rows ({recipe.learner.logit_rows})"]
    if not recipe.compute.activation_checkpointing:
        ways.append(f"set compute.activation_checkpointing=true ({_gb(memory.checkpointed_total)} in all)")
    return f"{said}: {', or '.join(ways)}"


@dataclass(frozen=True)
class StoreBytes:
    """Traffic and contents of Ray's object store."""

    groups_a_step: int  # written once by actors, read once by learner ranks
    weights_a_version: int  # written once per step by learner rank 0, read once by each node with reward actors
    state_a_checkpoint: int  # written by learner rank 0, read by the driver
    at_most: int  # held at once: a full buffer, pictures, the weights, and the state of a checkpoint
    pictures_a_step: int = 0  # written once by reward actors, read once by judge actors


def store_bytes(recipe: Recipe, work: Work) -> StoreBytes:
    is_split = recipe.placement == "split" or recipe.actors.count > 0
    weights, state = weights_bytes(recipe, work) if is_split else 0, state_bytes(work)
    return StoreBytes(
        groups_a_step=recipe.learner.images_per_step * recipe.group_bytes,
        weights_a_version=weights,
        state_a_checkpoint=state,
        at_most=recipe.buffer_capacity * (recipe.group_bytes + recipe.handed_over_bytes)
        + VERSIONS_ALIVE * weights
        + state,
        pictures_a_step=recipe.learner.images_per_step * recipe.handed_over_bytes,
    )


def store_problem(recipe: Recipe, store: StoreBytes) -> str | None:
    """Set if a local Ray's store is too small; a cluster sets its own size."""
    if store.at_most <= recipe.ray.object_store_bytes:
        return None
    needed = -(-store.at_most * 11 // 10 // GIGA) * GIGA
    return (
        f"a local Ray's object store has {_gb(recipe.ray.object_store_bytes)} and must hold "
        f"{_gb(store.at_most)}: set ray.object_store_bytes={needed} (on a cluster, for every node)"
    )


def _larger_gpu(section: str, num_gpus: float) -> str:
    if 0 < num_gpus < 1:
        return f"give it more of a GPU ({section}.num_gpus is {num_gpus:g})"
    return "it needs a GPU with more memory"


def _gb(size: int) -> str:
    return f"{size / GIGA:.1f} GB"
