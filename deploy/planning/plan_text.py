"""A plan as text: arithmetic, memory, bytes and time, with a short table each."""

from collections.abc import Iterator

from common.config.recipe import Recipe
from common.config.reward import HttpJudge
from common.text import counted
from deploy.planning.arithmetic_text import arithmetic
from deploy.planning.gpus import COPY_BYTES_PER_SECOND, STATE_BYTES_PER_SECOND, STORE_BYTES_PER_SECOND
from deploy.planning.plan import Plan
from deploy.planning.table import row_of, wrapped
from deploy.planning.timing import StepTime


def plan_text(plan: Plan) -> str:
    """The plan as text; every number is in the JSON too."""
    sections = (_head(plan), arithmetic(plan), _memory(plan), _bytes(plan), _fit(plan), _time(plan))
    return "\n\n".join("\n".join(section) for section in sections)


def _head(plan: Plan) -> Iterator[str]:
    recipe = plan.recipe
    yield f"{recipe.run.name}: {recipe.processes}, each on {plan.gpu.name}"
    yield "An estimate by arithmetic: nothing of it was run or measured."
    if recipe.reward.own_terms:
        yield f"Not counted: reward terms of your own, {', '.join(recipe.reward.own_terms)}."
    if recipe.learner.lora is not None:
        yield f"Adapters are trained: {plan.work.num_trained:,} of {plan.work.num_parameters:,} parameters."
    if plan.work.judges:
        yield f"Judges, of the files here or of the usual sizes: {', '.join(plan.work.judges)}."
    if recipe.reward.actors.count and plan.judge_memory is None:
        yield "Not counted: the memory and time of judge actors, which have no models that are known here."
    if recipe.reward.http is not None:
        yield wrapped(*_service(plan, recipe.reward.http))
    reserved = (
        ("actors.num_gpus", recipe.actors.num_gpus or not recipe.actors.count),
        ("learner.num_gpus", recipe.learner.num_gpus),
        ("reward.actors.num_gpus", recipe.reward.actors.num_gpus or plan.judge_memory is None),
    )
    bare = [key for key, is_there in reserved if not is_there]
    if bare:
        yield wrapped(f"The recipe reserves no GPU ({', '.join(bare)}) and is planned as if it did.")


def _service(plan: Plan, http: HttpJudge) -> Iterator[str]:
    recipe = plan.recipe
    who = "rank" if recipe.placement == "colocated" else "reward actor"
    if recipe.reward.actors.count:
        who = "judge actor"
    yield (
        f"Not counted: how long the service behind reward.http takes. Each {who} has at most {http.concurrency} "
        f"requests of {http.batch_size} pictures under way (reward.http.concurrency, batch_size); a request has "
        f"{http.timeout_seconds:g} s for its answer, {counted(http.retries + 1, 'time')} at most "
        "(timeout_seconds, retries)."
    )
    kinds = {kind: recipe.of_kind(kind).reward.http is not None for kind in recipe.rollout.shares}
    judged = sum(share for kind, share in recipe.rollout.shares.items() if kinds[kind])
    pictures = judged * recipe.learner.images_per_step * recipe.group.size
    yield f"A step has {pictures:.0f} pictures for it; all times below are without it."


def _memory(plan: Plan) -> Iterator[str]:
    recipe, actor, learner, judge = plan.recipe, plan.actor_memory, plan.learner_memory, plan.judge_memory
    unit, divisor = ("GB", 1e9) if learner.adamw >= 1e8 else ("MB", 1e6)

    def row(label: str, of_actor: int, of_rank: int, of_judge: int = 0) -> str:
        sizes = (of_actor, of_rank) if judge is None else (of_actor, of_rank, of_judge)
        return row_of(label, *(f"{size / divisor:.1f}" if size else "-" for size in sizes))

    heads = ("reward actor", "learner rank") + (() if judge is None else ("judge actor",))
    yield row_of(f"MEMORY, {unit} a process", *heads)
    yield row(_trained(recipe), actor.policy, learner.policy)
    yield row(_frozen(plan), actor.frozen, learner.frozen, judge.frozen if judge else 0)
    yield row("gradients", 0, learner.gradients)
    yield row("AdamW's two moments", 0, learner.adamw)
    yield row(f"activations of {counted(recipe.learner.micro_batch_size, 'group')}", 0, learner.activations)
    yield row(_on_top(plan), 0, learner.working)
    yield row(_at_work(plan), actor.working, 0)
    if judge is not None:
        yield row(f"at work in a judge actor, on {_judged_at_once(recipe)} pictures", 0, 0, judge.working)
    yield row("CUDA context, assumed", actor.context, learner.context, judge.context if judge else 0)
    yield row("all", actor.total, learner.total, judge.total if judge else 0)
    limits = actor.limit, learner.limit, judge.limit if judge else 0
    yield row("usable: 90 % of the GPU, or of the share reserved", *limits)
    if not (recipe.compute.activation_checkpointing or recipe.trains_decoder):
        yield row("all, with compute.activation_checkpointing=true", 0, learner.checkpointed_total)
    drawn = plan.sampling_memory
    yield wrapped(
        f"`sample` draws sampling.batch_size={recipe.sampling.batch_size} pictures at once in a reward actor; "
        f"{drawn.most} would fit, {drawn.a_picture / 1e6:.3g} MB each."
    )


def _trained(recipe: Recipe) -> str:
    if not recipe.trains_decoder:
        return "policy weights"
    return (
        f"policy weights; of a rank {'tokenizer, discriminator' if recipe.decoder.gan_weight else 'the tokenizer'}"
    )


def _frozen(plan: Plan) -> str:
    if plan.recipe.trains_decoder:
        return "frozen models, the decoder's average" if plan.recipe.decoder.ema_weight else "frozen models"
    return "tokenizer, metric and judges" if plan.work.judges else "tokenizer and perceptual metric"


def _judged_at_once(recipe: Recipe) -> int:
    return recipe.groups_scored_at_once * recipe.group.size


def _on_top(plan: Plan) -> str:
    recipe = plan.recipe
    if plan.learner_memory.working_stage == "optimizer":
        return "AdamW's scratch, when activations are gone"
    if recipe.is_scored_in_learner:
        return "on top, on the way back through decoder and metric"
    if recipe.compute.activation_checkpointing:
        return "on top: logits, casts of weights, a block made again"
    num_rows = min(recipe.learner.logit_rows, recipe.learner.micro_batch_size * recipe.num_tokens)
    return f"on top: logits of {num_rows} tokens at a time"


def _at_work(plan: Plan) -> str:
    recipe, stage = plan.recipe, plan.actor_memory.working_stage
    if stage in ("decode", "perceptual", "score", "gradient"):
        return f"at work, most at `{stage}` of {counted(recipe.pictures_scored_at_once, 'picture')}"
    if stage == "sample" and "free_running" in recipe.rollout.shares:
        return f"at work, most at `{stage}` of {recipe.actors.images_per_ticket * recipe.group.size} pictures"
    return f"at work, most at `{stage}` of {recipe.actors.images_per_ticket} images"


def _fit(plan: Plan) -> Iterator[str]:
    if not plan.problems:
        who, what = ("both", "") if plan.judge_memory is None else ("all", ", pictures")
        yield f"It fits: {who} processes on their GPUs, groups{what} and weights in a local Ray's object store."
    for problem in plan.problems:
        yield wrapped(f"DOES NOT FIT: {problem}.")


def _bytes(plan: Plan) -> Iterator[str]:
    store = plan.store
    full = "a full buffer, pictures," if store.pictures_a_step else "a full buffer,"
    yield "OBJECT STORE"
    for label, size, way in (
        ("groups, a step", store.groups_a_step, "from reward actors to learner ranks"),
        ("weights, a step", store.weights_a_version, "from learner rank 0 to every node with reward actors"),
        ("a checkpoint", store.state_a_checkpoint, "from learner rank 0 to the driver"),
        ("pictures, a step", store.pictures_a_step, "from reward actors to judge actors"),
        ("held at most", store.at_most, f"{full} two versions of the weights, a checkpoint"),
    ):
        if label.startswith("pictures") and not size:
            continue
        yield f"{label:<17}{_size(size):>10}   {way}"


def _time(plan: Plan) -> Iterator[str]:
    timing, recipe = plan.timing, plan.recipe
    steps = (timing.recipe, timing.other)
    yield row_of("TIME, estimated, of actors + ranks or colocated", *(step.name for step in steps))
    for label, name, scale in (
        *_scoring(plan),
        ("seconds to learn from them", "learner_seconds", 1),
        ("seconds that the weights' way adds", "weights_seconds", 1),
        ("seconds a step", "step_seconds", 1),
        (f"minutes for {recipe.learner.num_steps} steps, checkpoints included", "run_seconds", 60),
        ("GPU-hours, those of judge actors among them" if timing.judges else "GPU-hours", "gpu_hours", 1),
    ):
        yield row_of(label, *(_digits(getattr(step, name) / scale) for step in steps))
    if plan.price is not None:
        yield row_of("cost, at the price given", *(f"{plan.price * step.gpu_hours:.2f}" for step in steps))
    yield wrapped(*_verdict(plan))
    yield wrapped(*_assumptions(plan))
    if timing.published_run_seconds is not None:
        yield wrapped(
            "The published arithmetic at the same rates, spread evenly over the recipe's GPUs, with no weights to "
            f"move and no checkpoints: {_digits(timing.published_run_seconds / 60)} minutes."
        )


def _scoring(plan: Plan) -> Iterator[tuple[str, str, int]]:
    if plan.timing.judges is None:
        yield "seconds to score a step's images", "actors_seconds", 1
        return
    judges = counted(plan.recipe.reward.actors.count, "judge actor")
    yield "seconds to roll a step's images out", "actors_seconds", 1
    yield f"seconds of {judges}, beside that", "judges_seconds", 1
    yield "seconds until the last is judged", "scored_seconds", 1


def _verdict(plan: Plan) -> Iterator[str]:
    timing = plan.timing
    best, worse = sorted((timing.recipe, timing.other), key=lambda step: step.run_seconds)
    ratio = worse.run_seconds / best.run_seconds
    keys = (
        f"placement=colocated actors.count=0 buffer.max_staleness=0 learner.num_ranks={best.num_ranks}"
        if best.placement == "colocated"
        else f"placement=split actors.count={best.num_actors} learner.num_ranks={best.num_ranks} "
        f"buffer.max_staleness={best.max_staleness}"
    )
    which = "as the recipe has it" if best is timing.recipe else f"set {keys}"
    yield f"The better placement: {best.placement}, by {ratio:.2f} times ({which})."
    if timing.recipe.placement == "split":
        yield _bottleneck(timing.recipe)
        yield _saturation(plan)
    if timing.judges is not None:
        yield (
            f"A judge actor takes {_digits(timing.judges.ticket_seconds)} s for a ticket of "
            f"{counted(plan.recipe.actors.images_per_ticket, 'group')}. For these actors and ranks "
            f"reward.actors.count={timing.judges.enough} is enough: more make a step less than 5% shorter."
        )


def _assumptions(plan: Plan) -> Iterator[str]:
    timing, recipe, use = plan.timing, plan.recipe, plan.utilisation
    peak = "bfloat16" if recipe.compute.autocast == "bfloat16" else "float32"
    decode = "bfloat16" if recipe.reward.decode_dtype == "bfloat16" else "TF32"
    judges = recipe.reward_models.autocast.replace("none", "float32")
    preferences = f", those of judges of its {judges} peak" if recipe.reward.preferences and judges != peak else ""
    yield (
        f"Assumed: transformers reach {use.transformer:.0%} of the GPU's {peak} peak{preferences}, convolutions "
        f"{use.convolution:.0%} of its TF32 peak, the decoder {use.decoder:.0%} of {decode}'s; set others with "
        "--utilisation."
    )
    if timing.recipe.placement == "split":
        yield (
            f"New weights hold the learner up for {_digits(timing.copy_seconds)} s a step, at "
            f"{COPY_BYTES_PER_SECOND / 1e9:g} GB/s, and need {_digits(timing.store_seconds)} s through the object "
            f"store beside the training, at {STORE_BYTES_PER_SECOND / 1e9:g} GB/s."
        )
    yield (
        f"A checkpoint holds up for {_digits(timing.checkpoint_seconds)} s, at {STATE_BYTES_PER_SECOND / 1e9:g} "
        "GB/s, and is written beside the training. Left out: reading pictures, the ranks' all-reduce, starting "
        "up, evaluations."
    )


def _bottleneck(step: StepTime) -> str:
    if step.max_staleness == 0:
        share = step.scored_seconds / step.step_seconds
        who = "actors and judges" if step.judges_seconds else "actors"
        return (
            f"With buffer.max_staleness=0 they take turns: the {who} have {share:.0%} of a step. At 1 or more "
            "they overlap."
        )
    actors, learner = (1 - each / step.step_seconds for each in (step.actors_seconds, step.learner_seconds))
    if step.judges_seconds > max(step.actors_seconds, step.learner_seconds):
        return (
            f"Bottleneck: the judge actors; reward actors wait {actors:.0%} of a step, the learner {learner:.0%}."
        )
    if step.actors_seconds > step.learner_seconds:
        return f"Bottleneck: the {step.num_actors} reward actors; the learner waits {learner:.0%} of a step."
    return f"Bottleneck: the learner; the {step.num_actors} reward actors wait {actors:.0%} of a step."


def _saturation(plan: Plan) -> str:
    timing, enough = plan.timing, plan.timing.saturating
    said = (
        f"One actor takes {timing.actors_per_learner:.1f} times as long as "
        f"{counted(plan.recipe.learner.num_ranks, 'learner rank')}: "
    )
    if enough.actors_seconds <= enough.learner_seconds:
        return f"{said}actors.count={enough.num_actors} keeps up with them."
    return (
        f"{said}no number keeps up with them, for there are never more than {timing.most_useful_actors} tickets "
        "to work on (lower actors.images_per_ticket)."
    )


def _digits(value: float) -> str:
    """With three digits."""
    if value < 0.001:
        return "< 0.001"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
