"""`check`: everything that can be known of a recipe before a GPU is taken."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from actors.evaluation.conditions import readable
from actors.evaluation.features import (
    ClassifierFeatures,
    EfficientNetFeatures,
    InceptionFeatures,
    load_efficientnet,
    load_inception,
)
from actors.evaluation.reference import require_reference
from actors.rewards.own_term import own_term
from actors.rewards.perceptual import require_maps
from actors.rewards.preference import check_preference, prompt_of
from actors.sources.build import build_source
from common.config.recipe import Recipe
from common.config.reward_models import PREFERENCES
from common.errors import UserError
from common.hub import located
from common.models.families import build_perceptual_metric, build_policy, build_tokenizer, check_perceptual_metric
from common.models.image_classifier import ImageClassifier
from common.models.loading import load_judge_classifier
from common.models.lora import add_adapters, layers_to_adapt, trained_tensors
from common.models.weights_files import check_weights
from common.text import counted
from deploy.runs.tracking.tracker import require_packages
from deploy.service.source_check import check_source
from learner.remote_checkpoints import RemoteCheckpoints
from learner.train_step import PUBLISHED_DROPOUT


@dataclass(frozen=True)
class Finding:
    subject: str
    problem: str | None  # one sentence; None where all is well
    detail: str = ""


def check(recipe: Recipe) -> Iterator[Finding]:
    """One finding a subject; a problem in one does not hide those of the others."""
    for subject, look in _CHECKS.items():
        try:
            detail = look(recipe)
        except UserError as error:
            yield Finding(subject, str(error))
        else:
            yield Finding(subject, None, detail)


def require_sound(recipe: Recipe, *, in_ray: bool = True) -> None:
    """UserError with a line a problem, where there is one; what a process reserves matters in Ray alone."""
    found = check(recipe)
    problems = [each.problem for each in found if each.problem and (in_ray or each.subject != "resources")]
    if problems:
        raise UserError("\n".join(problems))


def _profile(recipe: Recipe) -> str:
    if list(recipe.rollout.shares) == ["free_running"]:
        return _free_running_profile(recipe)
    drop = recipe.context.condition_drop
    if recipe.profile == "published":
        if recipe.has_whole_context:
            return (
                f"published: the learner takes a row a sample ({recipe.group.size} times the work); logits are "
                "read one token late, where the token itself is in the context; prompts are padded on the right, "
                "so that image tokens of shorter ones stand elsewhere than in sampling. The script's too, but "
                "keys: context.noise=1, learner.images_per_step=64, perceptual.net=alex"
            )
        return (
            "published, as the authors' scripts train: what learns is not what sampled, since the learner alone "
            f"has dropout {PUBLISHED_DROPOUT:g}, drops {drop:.0%} of the conditions, and takes a row a sample "
            f"({recipe.group.size} times the work)"
        )
    if recipe.policy.released_context_is_whole:
        return (
            f"corrected: each logit is read before its token, as in sampling, and prompts are padded on the left; "
            f"actors drop {drop:.0%} of the conditions; the released script reads logits one token late, pads on "
            "the right and drops none"
        )
    return (
        f"corrected: what learns is what sampled, without dropout and with the same {drop:.0%} of the conditions "
        "dropped; in the authors' scripts (profile=published) the learner alone drops conditions, and has dropout "
        f"{PUBLISHED_DROPOUT:g}"
    )


def _free_running_profile(recipe: Recipe) -> str:
    scale = recipe.rollout.guidance_scale
    if scale == 1:
        return f"{recipe.profile}: free-running samples without guidance, of which both profiles learn alike"
    if recipe.profile == "published":
        return (
            "published, as AR-GRPO trains: what learns is not what sampled, since samples are drawn at a guidance "
            f"of {scale:g}, and old, new and reference log-probabilities are those without guidance"
        )
    return (
        f"corrected: what learns is what sampled, at a guidance of {scale:g}; AR-GRPO (profile=published) samples "
        "so and learns without guidance, at half the learner's work"
    )


def _tokenizer(recipe: Recipe) -> str:
    spec = recipe.tokenizer
    with torch.device("meta"):
        tokenizer = build_tokenizer(spec, image_size=recipe.image_size)
    check_weights(tokenizer, spec.checkpoint, what="tokenizer", obtain_from=spec.obtain_from)
    grid = recipe.grid_size
    return f"{_size(tokenizer)}, {grid} x {grid} tokens of {tokenizer.codebook_size} codes"


def _policy(recipe: Recipe) -> str:
    spec = recipe.policy
    with torch.device("meta"):
        policy = build_policy(spec, codebook_size=recipe.tokenizer.codebook_size, grid_size=recipe.grid_size)
    check_weights(policy, spec.checkpoint, what="policy", obtain_from=spec.obtain_from)
    section, size = recipe.learner.lora, _size(policy)
    if section is None:
        return size
    layers = layers_to_adapt(policy, section)
    add_adapters(policy, section, layers)
    num_trained = sum(tensor.numel() for tensor in trained_tensors(policy).values())
    kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
    return f"{size}, frozen; adapters of rank {section.rank} at {len(layers)} layers ({kinds}): {num_trained:,}"


def _perceptual(recipe: Recipe) -> str:
    spec = recipe.perceptual
    if not recipe.reward.lpips:
        return "not used (reward.lpips is 0)"
    check_perceptual_metric(spec)
    if recipe.has_reward_maps:
        with torch.device("meta"):
            require_maps(build_perceptual_metric(spec, trained=False))
    return f"{spec.family}, {spec.net}"


def _reward(recipe: Recipe) -> str:
    for address in recipe.reward.python:
        own_term(address)
    if recipe.reward.classifier:
        load_judge_classifier(recipe, torch.device("cpu"))
    weights = recipe.reward.weights
    said = ", ".join(f"{name} x {weight:g}" for name, weight in weights.items()) or "none: the prior alone"
    if recipe.has_code_gradients:
        sampled = ", ".join(recipe.sampled_weights)
        said += f"; credit by gradient{f', of {sampled} by sample' if sampled else ''}"
    if recipe.reward.actors.count:
        judges = counted(recipe.reward.actors.count, "judge actor")
        said += f"; {', '.join(recipe.reward.judged_weights)} by {judges}"
    shares = recipe.rollout.shares
    if len(shares) > 1:
        for kind, share in shares.items():
            of_it = " and ".join(recipe.of_kind(kind).reward.weights) or "none"
            said += f"; of the {kind.replace('_', '-')} groups ({share:.0%}): {of_it}"
    return said


def _preference(recipe: Recipe) -> str:
    """Of the reward, and of the scores that are taken."""
    scores = recipe.evaluation.scores if recipe.evaluation.enabled else ()
    names = [name for name in PREFERENCES if name in (*recipe.reward.preferences, *scores)]
    if not names:
        return "not used (no weight of reward, and no evaluation.scores)"
    said = [check_preference(recipe, name) for name in names]
    if any(name != "aesthetic" for name in names):
        said.append(f"prompts such as “{prompt_of(recipe, readable(build_source(recipe, 'train'), 0).text)}”")
    return "; ".join(said)


def _features(recipe: Recipe) -> str:
    section = recipe.evaluation
    if not section.enabled:
        unused = [key for key in ("every", "compare_temperature", "compare_prior") if getattr(section, key)]
        if unused and "enabled" not in section.model_fields_set:
            raise UserError(
                f"evaluation.{unused[0]} is set and evaluation.enabled is not: set it to true, or to false"
            )
        return "not used (evaluation.enabled is false)"
    if section.features == "inception":
        dim, detail = InceptionFeatures.dim, _size(load_inception(section.inception_weights))
    elif section.features == "efficientnet":
        dim, detail = EfficientNetFeatures.dim, _size(load_efficientnet())
    else:
        classifier = ImageClassifier(recipe.policy.num_classes)
        makes_it = recipe.pretrain is not None and recipe.pretrain.classifier is not None
        obtain_from = recipe.policy.obtain_from if makes_it else ""
        check_weights(classifier, section.classifier, what="evaluation.classifier", obtain_from=obtain_from)
        dim, detail = ClassifierFeatures.dim, _size(classifier)
    if section.reference:
        reference = located(section.reference, "evaluation.reference")
        detail += f"; reference: {require_reference(reference, dim)}"
    return f"{section.features}, {detail}"


def _buffer(recipe: Recipe) -> str:
    size = recipe.buffer_capacity * recipe.group_bytes / 1e6
    said = f"{recipe.buffer_capacity} groups, {size:.1f} MB, at most {recipe.buffer.max_staleness} versions stale"
    pictures = recipe.buffer_capacity * recipe.handed_over_bytes / 1e6
    return said + (f"; at most {pictures:.1f} MB of their pictures on the way to judge actors" if pictures else "")


def _checkpoints(recipe: Recipe) -> str:
    section = recipe.checkpoint
    where = "in the run folder"
    if section.url:
        RemoteCheckpoints(section.url)
        where += f" and at {section.url}"
    return f"every {section.every} steps, the {section.keep} newest kept {where}"


def _resources(recipe: Recipe) -> str:
    actors, judges, learner = recipe.actors, recipe.reward.actors, recipe.learner
    if recipe.compute.device == "cuda" and not (actors.num_gpus and learner.num_gpus):
        raise UserError(
            f"compute.device is cuda, but actors.num_gpus is {actors.num_gpus:g} and learner.num_gpus "
            f"{learner.num_gpus:g}, and a process without a reserved GPU sees none: set both above 0"
        )
    if recipe.compute.device == "cuda" and judges.count and not judges.num_gpus:
        raise UserError(
            "compute.device is cuda, but reward.actors.num_gpus is 0, and a process without a reserved GPU sees "
            "none: set it above 0"
        )
    pools = ((actors.count, actors), (judges.count, judges), (learner.num_ranks, learner))
    num_cpus = sum(count * section.num_cpus for count, section in pools)
    num_gpus = sum(count * section.num_gpus for count, section in pools)
    return (
        f"{recipe.processes}; they reserve {num_gpus:g} GPU and {num_cpus:g} CPU of a cluster, and share the "
        "cores of one machine, however few"
    )


def _size(module: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,} parameters"


_CHECKS: dict[str, Callable[[Recipe], str]] = {
    "source": check_source,
    "tokenizer": _tokenizer,
    "policy": _policy,
    "profile": _profile,
    "reward": _reward,
    "perceptual": _perceptual,
    "preference": _preference,
    "features": _features,
    "buffer": _buffer,
    "checkpoints": _checkpoints,
    "tracking": require_packages,
    "resources": _resources,
}
