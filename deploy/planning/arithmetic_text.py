"""The arithmetic of a plan as a table: this run's, and beside it the released scripts' where they do the same."""

from collections.abc import Iterator

from common.guidance import guidance_scales
from deploy.planning.counting import published_group_size
from deploy.planning.plan import Plan
from deploy.planning.table import row_of, wrapped

_FLOP_UNITS = (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6))
Rows = Iterator[tuple[str, int, int]]  # what, this run's, the released scripts'


def arithmetic(plan: Plan) -> Iterator[str]:
    recipe, published = plan.recipe, plan.published
    num_samples, num_published = recipe.group.size, published_group_size(recipe)
    unit, divisor = next((name, size) for name, size in _FLOP_UNITS if plan.actor_flops >= size / 10)

    def row(label: str, ours: int, theirs: int) -> str:
        cells = (ours,) if published is None else (ours, theirs)
        return row_of(label, *(f"{flops / divisor:.2f}" for flops in cells))

    samples = "sample" if num_samples == 1 else f"{num_samples} samples"
    theirs = "published" if num_published == num_samples else f"published, {num_published}"
    columns = ("this run",) if published is None else ("this run", theirs)
    of = "for an image" if recipe.learner.method == "ste" else f"for an image and its {samples}"
    yield row_of(f"ARITHMETIC, {unit} {of}", *columns)
    label = "actor    "
    for what, ours, other in _actor_rows(plan):
        yield row(f"{label}{what}", ours, other)
        label = " " * len(label)
    yield row("         all", plan.actor_flops, published.actor_flops if published else 0)
    label = "learner  "
    for what, ours, other in _learner_rows(plan):
        yield row(f"{label}{what}", ours, other)
        label = " " * len(label)
    yield row("         all", plan.learner_flops, published.learner_flops if published else 0)
    if plan.judge_flops:
        yield row(f"judges   {_judged(plan)}", plan.judge_flops, 0)
    everyone = plan.actor_flops + plan.learner_flops + plan.judge_flops
    yield row("in all" if plan.judge_flops else "both", everyone, plan.published_flops or 0)
    drawn = f"To draw the tokens of a picture by `sample`, {_guided(plan)}: {plan.work.drawing / divisor:.2f}."
    if published is None:
        yield wrapped("A multiply-add is 2.", _mixed(plan), drawn)
        return
    idle_kl = (
        "The released class-conditional script also runs a reference model that it makes no use of: "
        f"{published.idle_kl / divisor:.2f} more, left out here."
    )
    yield wrapped(
        "A multiply-add is 2. Published: the arithmetic of the released scripts, which take the image through the "
        f"learner and through the metric {num_published} times instead of once.",
        idle_kl if recipe.policy.conditioning == "class" else "",
        drawn,
    )


def _actor_rows(plan: Plan) -> Rows:
    recipe, actor, theirs = plan.recipe, plan.work.actor, plan.published
    if "teacher_forced" in recipe.rollout.shares:
        yield "encode the image", actor.encode, theirs.encode if theirs else 0
    yield from _sampling_rows(plan)
    if not recipe.is_scored_in_learner:
        spec = recipe.perceptual
        metric = f"{spec.family} {spec.net}" if actor.perceptual else "metric (unused)"
        yield "decode the samples", actor.decode, theirs.decode if theirs else 0
        if "teacher_forced" in recipe.rollout.shares:
            yield f"{metric}, samples and image", actor.perceptual, theirs.perceptual if theirs else 0
    if judged := actor.judge + actor.classifier:
        yield f"judges, {_judged(plan)}", judged, 0
    if recipe.has_code_gradients:
        yield "back to the codes, through both", actor.gradient, 0
        yield "logits again, to price the entries", actor.price, 0


def _sampling_rows(plan: Plan) -> Rows:
    recipe, actor, theirs = plan.recipe, plan.work.actor, plan.published
    is_free, is_mixed = "free_running" in recipe.rollout.shares, len(recipe.rollout.shares) > 1
    if is_free:
        yield f"draw the samples, token by token{_twice(recipe.rollout.guidance_scale)}", actor.draw, 0
    if is_free and not is_mixed:
        yield f"their log-probabilities{_twice(recipe.learned_guidance_scale)}", actor.policy, 0
    elif recipe.num_samples_drawn:
        more = ", and log-probabilities" if is_mixed else ""
        yield f"policy, one forward{more}", actor.policy, theirs.policy if theirs else 0
        yield "logits to draw the samples from", actor.head, theirs.head if theirs else 0


def _learner_rows(plan: Plan) -> Rows:
    recipe, learner, theirs = plan.recipe, plan.work.learner, plan.published
    if not recipe.trains_decoder:
        way_back = "past frozen weights" if recipe.learner.lora else "twice the forward"
        reference = ", and of the reference" if recipe.learner.prior == "kl" and theirs is None else ""
        yield f"forward{reference}", learner.forward, theirs.forward if theirs else 0
        yield f"backward, {way_back}", learner.backward, theirs.backward if theirs else 0
        yield "made again to save memory", learner.recomputed, 0
    if recipe.is_scored_in_learner:
        others = (", its average", recipe.decoder.ema_weight), (", the first one", recipe.decoder.anchor_weight)
        more = "".join(other for other, weight in others if weight)
        yield f"decoder, there and back{more}", learner.decode, 0
        yield "metric, there and back", learner.perceptual, 0
    if recipe.decoder.gan_weight:
        yield "discriminator, there and back", learner.discriminator, 0


def _judged(plan: Plan) -> str:
    read_prompts = set(plan.recipe.reward.preferences) - {"aesthetic"}
    return "samples and prompt" if read_prompts else "the samples"


def _twice(scale: float) -> str:
    return "" if scale == 1 else ", twice: guided"


def _mixed(plan: Plan) -> str:
    if len(plan.recipe.rollout.shares) == 1:
        return ""
    return "The mean over groups of both kinds, by their shares."


def _guided(plan: Plan) -> str:
    scales = set(guidance_scales(plan.recipe.sampling, plan.recipe.num_tokens))
    return "without guidance" if scales == {1} else "with guidance, and so twice"
