"""A recipe or a study, named by its path or by the name of a shipped one."""

import logging
from difflib import get_close_matches
from pathlib import Path

from common.errors import RecipeError
from common.paths import CHECKOUT

RECIPES = CHECKOUT / "deploy/recipes"
STUDIES = CHECKOUT / "deploy/studies"
SUFFIXES = (".yaml", ".yml")

log = logging.getLogger("vapi.recipe")


def find_file(name: str | Path, shipped: Path, what: str) -> Path:
    """The file at `name`; for a name without a folder, mnist or mnist.yaml, also one of the folder `shipped`.

    A file in the current folder comes before a shipped one of the same name, and a line of the log says so.
    `what` it is, "recipe" or "study", is for messages. Raises RecipeError where there is none.
    """
    path = Path(name).expanduser()
    stem = path.name.removesuffix(path.suffix) if path.suffix in SUFFIXES else path.name
    ours = shipped / f"{stem}.yaml"
    is_bare = str(name) == path.name != ""
    own = next((each for each in _spellings(path, is_bare) if each.exists() and not each.is_dir()), None)
    if own is None and is_bare and ours.is_file():
        return ours
    if own is None:
        raise RecipeError(f"no {what} at {name}: {_advice(path, stem, shipped)}")
    if is_bare and ours.is_file() and not own.samefile(ours):
        log.warning("%s %s is ./%s of the current folder, not the shipped %s", what, name, own, _shown(ours))
    return own


def shipped_names(shipped: Path) -> list[str]:
    return sorted(path.stem for path in shipped.glob("*.yaml"))


def _spellings(path: Path, is_bare: bool) -> list[Path]:
    if not is_bare or path.suffix in SUFFIXES:
        return [path]
    return [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)]


def _advice(path: Path, stem: str, shipped: Path) -> str:
    if (path / "recipe.json").is_file():
        return f"it is a folder; its recipe is {path / 'recipe.json'}"
    if path.is_dir():
        return "it is a folder; name a file in it"
    names = shipped_names(shipped)
    near = get_close_matches(stem.lower(), names, n=1)
    question = f"did you mean {near[0]}? " if near else ""
    return f"{question}name a file, or one of {', '.join(names)} (in {_shown(shipped)})"


def _shown(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))
