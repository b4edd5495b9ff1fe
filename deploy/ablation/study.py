"""A study: one recipe, its variants, and seeds. Read from YAML and checked before anything runs."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from common.config.base import Section
from common.config.load import load_recipe, needed, with_changes
from common.config.named_file import STUDIES, find_file
from common.config.recipe import Recipe
from common.config.yaml_text import RepeatedKeyError, read_yaml
from common.errors import RecipeError
from common.paths import resolve

BASE = "base"
DELAY = "delay"
SAMPLED = "sampled"
LEAST_BASE_SEEDS = 3  # to measure the effect of the sampling seed

Changes = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,_=-]*$")]
Seed = Annotated[int, Field(ge=0)]


class StudySection(Section):
    """A study file. Recipe keys are dotted, as in learner.lr."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The name of the study and its pages."""
    question: str = Field(min_length=1, pattern=r"^[^\n]*$")
    """The study's question, in one line."""
    recipe: str
    """The recipe that all variants start from: a file, or the name of a shipped one."""
    changes: Changes = Field(default_factory=dict)
    """Recipe keys to set for all variants and for all scoring."""
    variants: dict[Name, Changes] = Field(min_length=1)
    """Recipe keys that each variant sets, in the table's order; `delay` makes a variant learn from groups that are
    that many policy versions old, with the local runner; `sampled`, keys of the section `sampling`, makes it
    the base, untrained, sampled so.
    """
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    """Recipe seeds to train each variant with."""
    runner: Literal["local", "train"] = "local"
    """local: the algorithm in one process. train: the Ray service, one run after another."""
    scores: tuple[str, ...] = Field(default=("held_out_reward", "fd"), min_length=1)
    """The scores in the table, in order; each cell keeps all scores."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {list(self.seeds)}: name each seed once")
        for name, changes in self.variants.items():
            problem = _variant_problem(name, changes, self.runner)
            if problem:
                raise ValueError(f"variants.{name}: {problem}")
        return self


@dataclass(frozen=True)
class Cell:
    """One training and its scores: a variant with a seed. Or the base model, which is scored untrained.

    The base may be a variant too, sampled in another way.
    """

    variant: str
    index: int  # of the seed in the study
    recipe: Recipe | None  # the recipe to train with; None for the base
    scored_by: Recipe  # the study's recipe, with sampling seed evaluation.seed + index
    delay: int = 0
    runner: str = "local"

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.recipe.seed if self.recipe else self.scored_by.evaluation.seed}"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the cell depends on, except the code and the files that its recipes name."""
        return {
            "recipe": self.recipe.model_dump(mode="json") if self.recipe else None,
            "scored_by": self.scored_by.model_dump(mode="json"),
            "delay": self.delay,
            "runner": self.runner,
        }

    @property
    def key(self) -> str:
        """A digest of the settings, independent of the study and of the cell's name in it."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Study:
    section: StudySection
    recipe: Recipe  # with the changes of all variants
    base: tuple[Cell, ...]  # the generator before training, one cell per sampling seed
    cells: tuple[Cell, ...]  # all variants with the first seed, then with the second, …
    overrides: tuple[str, ...] = ()  # of the command line


def load_study(path: str, overrides: Iterable[str] = ()) -> Study:
    """The study at `path`, or the shipped one of that name; every cell's recipe is checked.

    `overrides` (key=value) apply to all variants, after the study's own changes. Raises RecipeError.
    """
    section = _section(path)
    own = tuple(overrides)
    shared = [*_as_overrides(section.changes), *own]
    recipe = load_recipe(_recipe_of(section), shared)
    problem = recipe.evaluation.problem(recipe.policy.conditioning)
    if problem:
        raise RecipeError(problem)
    number = max(len(section.seeds), LEAST_BASE_SEEDS)
    scored_by = [
        with_changes(recipe, {"evaluation.seed": recipe.evaluation.seed + index}) for index in range(number)
    ]
    base = tuple(Cell(BASE, index, None, each) for index, each in enumerate(scored_by))
    return Study(section, recipe, base, tuple(_cells(section, shared, scored_by)), own)


def _cells(section: StudySection, shared: Sequence[str], scored_by: Sequence[Recipe]) -> Iterable[Cell]:
    for index, seed in enumerate(section.seeds):
        for variant, changes in section.variants.items():
            if SAMPLED in changes:
                keys = {f"sampling.{key}": value for key, value in changes[SAMPLED].items()}
                yield Cell(variant, index, None, _checked(variant, scored_by[index], keys))
                continue
            own = {key: value for key, value in changes.items() if key != DELAY} | {"seed": seed}
            try:
                recipe = load_recipe(_recipe_of(section), [*shared, *_as_overrides(own)])
            except RecipeError as error:
                raise RecipeError(f"variant {variant}: {error}") from None
            if changes.get(DELAY, 0) and not recipe.is_paper_method:
                raise RecipeError(
                    f"variant {variant}: delay is for teacher-forced groups under learner.method grpo without "
                    "learner.embedding_weight, as deploy/local.py has them"
                )
            if recipe.profile == "published" and section.runner == "local":
                raise RecipeError(f"variant {variant}: profile is published, which runner: train alone can do")
            yield Cell(variant, index, recipe, scored_by[index], changes.get(DELAY, 0), section.runner)


def _checked(variant: str, recipe: Recipe, keys: Changes) -> Recipe:
    try:
        return with_changes(recipe, keys)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"variant {variant}: {key}: {needed(first)}") from None


def _recipe_of(section: StudySection) -> Path | str:
    path = resolve(section.recipe)
    return path if path.is_file() else section.recipe


def _section(name: str) -> StudySection:
    path = find_file(name, STUDIES, "study")
    try:
        tree = read_yaml(path.read_text(encoding="utf-8-sig"))
    except RepeatedKeyError as error:
        raise RecipeError(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} is not a readable YAML file: {' '.join(str(error).split())}") from None
    try:
        return StudySection.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        is_ours = first["type"] == "value_error"
        message = first["msg"].removeprefix("Value error, ") if is_ours else needed(first)
        raise RecipeError(f"{path}: {key}: {message}" if key else f"{path}: {message}") from None


def _variant_problem(name: str, changes: Changes, runner: str) -> str | None:
    if name == BASE:
        return f"{BASE} is the untrained generator, which every study scores: choose another name"
    shared = [
        key for key in changes if key == "seed" or key.partition(".")[0] in ("evaluation", "sampling", "run")
    ]
    if shared:
        return f"{shared[0]} must be the same for all variants: set it under changes, or seeds for the seed"
    if SAMPLED in changes and (len(changes) > 1 or not isinstance(changes[SAMPLED], dict)):
        return f"{SAMPLED} is for the base, untrained: give it keys of the section sampling, and no other key"
    delay = changes.get(DELAY, 0)
    if type(delay) is not int or delay < 0:
        return f"delay is {delay!r}: use a whole number of policy versions, 0 or more"
    if delay and runner == "train":
        return "delay is for runner: local; the service's staleness is bounded by buffer.max_staleness"
    return None


def _as_overrides(changes: Changes) -> list[str]:
    return [f"{key}={json.dumps(value, default=str)}" for key, value in changes.items()]
