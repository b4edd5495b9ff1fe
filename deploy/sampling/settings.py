"""What the bytes of the pictures depend on, kept beside them: a call with other settings is refused."""

from collections.abc import Iterator, Mapping
from typing import Any

from common.config.recipe import Recipe
from deploy.sampling.options import SampleOptions

SETTINGS = "sampling.json"
# Where weights lie does not matter, what they are does: their digests say it.
_MODEL_PLACES = {"checkpoint", "source"}


def settings_of(recipe: Recipe, options: SampleOptions, num_pictures: int, digests: Mapping[str, str]) -> dict:
    """By name: the recipe's key or the option where it is one. `digests` are of weights and prompts."""
    return {
        **digests,
        "--seed": options.seed,
        "number of pictures": num_pictures,
        "--layout": options.layout,
        "--per-prompt": options.per_prompt or 1,
        "--text-encoder": options.text_encoder,
        "image_size": recipe.image_size,
        **_flat("policy", recipe.policy.model_dump(mode="json", exclude=_MODEL_PLACES)),
        **_flat("tokenizer", recipe.tokenizer.model_dump(mode="json", exclude=_MODEL_PLACES)),
        **_flat("sampling", recipe.sampling.model_dump(mode="json")),
        "compute.device": recipe.compute.device,
        "compute.num_threads": recipe.compute.num_threads,
    }


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Sections as dotted keys."""
    return dict(_leaves(name, value))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(f"{name}.{key}", child)
    else:
        yield name, value
