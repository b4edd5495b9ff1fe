"""A term of the user's own, named `module:attribute` in the recipe.

The attribute is a function measure(decoded_BGCHW, sources) -> [B, G], an object with such a method, or a class
that makes one without arguments. Lower is better unless it has `higher_is_better = True`. Under token credit a
method measure_map(decoded_BGCHW, sources, grid_size) -> [B, G, T], if there is one, says where in the picture the
term comes from; the mean of the map is then the term.
"""

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor

from actors.rewards.term import RewardTerm, Sources
from common.errors import RecipeError, first_line


class OwnTerm:
    stage = "score"

    def __init__(self, measure: Callable[[Tensor, Sources], Tensor], higher_is_better: bool):
        self._measure = measure
        self.higher_is_better = higher_is_better

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return self._measure(decoded_BGCHW, sources)


class OwnMappedTerm(OwnTerm):
    def __init__(
        self,
        measure: Callable[[Tensor, Sources], Tensor],
        measure_map: Callable[[Tensor, Sources, int], Tensor],
        higher_is_better: bool,
    ):
        super().__init__(measure, higher_is_better)
        self._measure_map = measure_map

    def measure_map(self, decoded_BGCHW: Tensor, sources: Sources, grid_size: int) -> tuple[Tensor, Tensor]:
        map_BGT = self._measure_map(decoded_BGCHW, sources, grid_size)
        return map_BGT.mean(dim=-1), map_BGT


def own_term(address: str) -> RewardTerm:
    """The term at `module:attribute`. Raises RecipeError where it cannot be had."""
    found = _found(address)
    if isinstance(found, type):
        found = _made(found, address)
    measure, measure_map = getattr(found, "measure", found), getattr(found, "measure_map", None)
    if not callable(measure):
        raise RecipeError(
            f"reward.python names {address}, which is {type(found).__name__}: it must be a function "
            "measure(decoded, sources), or have a method of that name"
        )
    higher_is_better = bool(getattr(found, "higher_is_better", False))
    if measure_map is None:
        return OwnTerm(measure, higher_is_better)
    return OwnMappedTerm(measure, measure_map, higher_is_better)


def _found(address: str) -> Any:
    module_name, _, attribute = address.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module does when it is imported
        raise RecipeError(
            f"reward.python names {address}, but the module {module_name} cannot be imported "
            f"({type(error).__name__}: {first_line(error)}): it must lie in the checkout or on PYTHONPATH"
        ) from error
    if not hasattr(module, attribute):
        raise RecipeError(f"reward.python names {address}, but the module {module_name} has no {attribute}")
    return getattr(module, attribute)


def _made(term_class: type, address: str) -> Any:
    try:
        return term_class()
    except Exception as error:  # whatever the user's class does
        raise RecipeError(
            f"reward.python names {address}, a class that cannot be made without arguments "
            f"({type(error).__name__}: {first_line(error)}): name an object of it"
        ) from error
