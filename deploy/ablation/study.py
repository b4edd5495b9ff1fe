"""A study: one recipe, variants of it, and seeds. Read from YAML and checked before anything runs."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from common.config.base import Section
from common.config.load import load_recipe
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.paths import CHECKOUT, resolve

BASE = "base"
DELAY = "delay"
STUDIES = CHECKOUT / "deploy/studies"

Changes = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,_=-]*$")]
Seed = Annotated[int, Field(ge=0)]


class StudySection(Section):
    """A study file. Recipe keys are dotted, as in learner.lr."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The study's name; results are in runs/studies/NAME where no other folder is given."""
    question: str = Field(min_length=1, pattern=r"^[^\n]*$")
    """What the study asks, in a line."""
    recipe: str
    """The recipe file that all variants start from."""
    changes: Changes = Field(default_factory=dict)
    """Recipe keys that are set for all variants, and for the scoring of all."""
    variants: dict[Name, Changes] = Field(min_length=1)
    """Recipe keys that each variant sets, in the order of the table; `delay` lets a variant learn from groups
    that many policy versions old, with the local runner."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """Recipe seeds that each variant is trained with."""
    runner: Literal["local", "train"] = "local"
    """local: the algorithm in one process. train: the Ray service, one run after another."""
    scores: tuple[str, ...] = Field(default=("held_out_reward", "fd"), min_length=1)
    """The scores of the table, in its order; all are kept with each cell."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {list(self.seeds)}: name each seed once")
        if len({_file_name(name) for name in self.variants}) < len(self.variants):
            raise ValueError("variants: two names are alike but for signs and spaces: tell them apart by letters")
        for name, changes in self.variants.items():
            problem = _variant_problem(name, changes, self.runner)
            if problem:
                raise ValueError(f"variants.{name}: {problem}")
        return self


@dataclass(frozen=True)
class Cell:
    """One training: a variant with a seed."""

    variant: str
    index: int  # of the seed in the study: sampling seed evaluation.seed + index scores it
    recipe: Recipe
    delay: int = 0

    @property
    def name(self) -> str:
        return f"{_file_name(self.variant)}-seed{self.recipe.seed}"


@dataclass(frozen=True)
class Study:
    section: StudySection
    recipe: Recipe  # with the changes of all variants: what the base is, and what every cell is scored by
    cells: tuple[Cell, ...]  # all variants with the first seed, then with the second, …
    overrides: tuple[str, ...] = ()  # of the command line


def load_study(path: str, overrides: Iterable[str] = ()) -> Study:
    """The study at `path`, or the shipped one of that name; every cell's recipe is checked.

    `overrides` (key=value) hold for all variants, after the study's own changes. Raises RecipeError.
    """
    section = _section(path)
    own = tuple(overrides)
    shared = [*_as_overrides(section.changes), *own]
    recipe = load_recipe(resolve(section.recipe), shared)
    problem = recipe.evaluation.problem(recipe.policy.conditioning)
    if problem:
        raise RecipeError(problem)
    return Study(section, recipe, tuple(_cells(section, shared)), own)


def _cells(section: StudySection, shared: Sequence[str]) -> Iterable[Cell]:
    for index, seed in enumerate(section.seeds):
        for variant, changes in section.variants.items():
            own = {key: value for key, value in changes.items() if key != DELAY} | {"seed": seed}
            try:
                recipe = load_recipe(resolve(section.recipe), [*shared, *_as_overrides(own)])
            except RecipeError as error:
                raise RecipeError(f"variant {variant}: {error}") from None
            if recipe.profile == "published" and section.runner == "local":
                raise RecipeError(f"variant {variant}: profile is published, which runner: train alone can do")
            yield Cell(variant, index, recipe, changes.get(DELAY, 0))


def _section(name: str) -> StudySection:
    path = Path(name).expanduser()
    shipped = STUDIES / f"{name}.yaml"
    path = shipped if not path.is_file() and shipped.is_file() else path
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        shipped_names = ", ".join(sorted(each.stem for each in STUDIES.glob("*.yaml")))
        raise RecipeError(f"no study at {name}: name a file, or one of {shipped_names}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from None
    try:
        return StudySection.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{path}: {key}: {message}" if key else f"{path}: {message}") from None


def _variant_problem(name: str, changes: Changes, runner: str) -> str | None:
    if name == BASE:
        return f"{BASE} is the untrained generator, which every study scores: choose another name"
    shared = [
        key for key in changes if key == "seed" or key.partition(".")[0] in ("evaluation", "sampling", "run")
    ]
    if shared:
        return f"{shared[0]} must be the same for all variants: set it under changes, or seeds for the seed"
    delay = changes.get(DELAY, 0)
    if not isinstance(delay, int) or delay < 0:
        return f"delay is {delay!r}: use a whole number of policy versions, 0 or more"
    if delay and runner == "train":
        return "delay is for runner: local; the service's staleness is bounded by buffer.max_staleness"
    return None


def _file_name(variant: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", variant)


def _as_overrides(changes: Changes) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]
