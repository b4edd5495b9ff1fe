"""What the bytes of the pictures depend on, kept beside them: a call with other settings is refused."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.atomic import write_json
from common.config.recipe import Recipe
from common.errors import DataError
from deploy.sampling.options import SampleOptions

SETTINGS = "sampling.json"
# Where weights lie does not matter, what they are does: their digests say it.
_MODEL_PLACES = {"checkpoint", "obtain_from"}


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


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make `folder` the one of these settings. DataError where it is another's."""
    path = folder / SETTINGS
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"--out {folder} is not empty and holds no pictures of `sample`: name a new folder")
        write_json(path, settings)
        return
    former = json.loads(path.read_text())
    for name in dict.fromkeys((*settings, *former)):
        before, now = former.get(name), settings.get(name)
        if before != now:
            raise DataError(
                f"--out {folder} holds pictures of {name} {_said(before)}, and this call has {_said(now)}: repeat "
                "the call that began it, name another folder, or remove that one"
            )


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Sections as dotted keys."""
    return dict(_leaves(name, value))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(f"{name}.{key}", child)
    else:
        yield name, value


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
