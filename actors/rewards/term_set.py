"""Some terms of the reward, measured together on pictures that are decoded already.

Letters: B or b images, G samples per image, T image tokens, C, H, W of a picture.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from actors.rewards.term import RewardTerm, Sources
from common.clock import StageClock
from common.errors import JudgeError, RewardError, first_line
from common.judged_pictures import JudgedPictures
from common.reward_terms import RewardTerms, without_misses


class TermSet:
    def __init__(self, terms: Mapping[str, RewardTerm], grid_size: int | None = None):
        """With a grid size every term also says where in the picture it comes from, as far as it can."""
        self.terms = terms
        self._grid_size = grid_size
        self.higher_is_better = frozenset(name for name, term in terms.items() if term.higher_is_better)

    def judge(self, pictures: JudgedPictures, sources: Sources, clock: StageClock) -> RewardTerms:
        """What `measure` does, of 8-bit pictures; NaN where the decoder gave no numbers."""
        measured = self.measure(pictures.floats(), sources, clock)
        unsound_BG1 = ~pictures.is_sound_BG[:, :, None]
        return replace(
            measured,
            terms={
                name: term.masked_fill(unsound_BG1[..., 0], torch.nan) for name, term in measured.terms.items()
            },
            maps={name: each.masked_fill(unsound_BG1, torch.nan) for name, each in measured.maps.items()},
        )

    def measure(self, decoded_bGCHW: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        """The terms of each sample, and the maps where there are to be any.

        Where a term fails on some images, they are measured one by one to find which: those are among the
        `failures`, by the name of the term.
        """
        num_images, num_samples = decoded_bGCHW.shape[:2]
        if not self.terms:
            return RewardTerms((num_images, num_samples))
        try:
            return self._all_terms(decoded_bGCHW, sources, clock)
        except RewardError as error:
            if num_images == 1:
                return self.failed(num_samples, str(error), decoded_bGCHW)
        images = [slice(image, image + 1) for image in range(num_images)]
        return RewardTerms.joined([self.measure(decoded_bGCHW[image], sources[image], clock) for image in images])

    def values(self, decoded_bGCHW: Tensor, sources: Sources, clock: StageClock) -> dict[str, Tensor]:
        """The terms alone. Raises RewardError where one fails on any of the images."""
        measured = {}
        for name, term in self.terms.items():
            with clock(term.stage):
                measured[name] = _measured(name, term, decoded_bGCHW, sources)
        return measured

    def failed(self, num_samples: int, reason: str, like: Tensor) -> RewardTerms:
        """Of one image, with the reason."""
        nothing_1G = like.new_full((1, num_samples), torch.nan)
        terms = dict.fromkeys(self.terms, nothing_1G)
        maps = {}
        if self._grid_size is not None:
            nothing_1GT = nothing_1G[:, :, None].expand(-1, -1, self._grid_size**2)
            maps = dict.fromkeys(terms, nothing_1GT)
        missed = dict.fromkeys(self._missing, torch.zeros_like(nothing_1G, dtype=torch.bool))
        return RewardTerms((1, num_samples), terms, maps, self.higher_is_better, {0: reason}, missed)

    def _all_terms(self, decoded_bGCHW: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        B, G = decoded_bGCHW.shape[:2]
        maps: dict[str, Tensor] = {}
        if self._grid_size is None:
            terms = self.values(decoded_bGCHW, sources, clock)
        else:
            terms = {}
            for name, term in self.terms.items():
                with clock(term.stage):
                    terms[name], maps[name] = _mapped(name, term, decoded_bGCHW, sources, self._grid_size)
        missed, failures = self._without_misses(terms, maps)
        return RewardTerms((B, G), terms, maps, self.higher_is_better, failures, missed)

    @property
    def _missing(self) -> list[str]:
        """Judges that may miss a sample."""
        return [name for name, term in self.terms.items() if getattr(term, "may_miss", False)]

    def _without_misses(
        self, terms: dict[str, Tensor], maps: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[int, str]]:
        """Fills, in place, what judges missed. Returns where, and the groups with too little left to compare."""
        missed, failures = {}, {}
        for name in self._missing:
            terms[name], missed[name] = without_misses(terms[name])
            if name in maps:
                maps[name] = terms[name][:, :, None].expand_as(maps[name])
            for group in terms[name].isnan().any(dim=1).nonzero()[:, 0].tolist():
                num, size = int((~missed[name][group]).sum()), missed[name].shape[1]
                failures[group] = f"reward.{name} scored {num} of {size} samples"
        return missed, failures


def _measured(name: str, term: RewardTerm, decoded_bGCHW: Tensor, sources: Sources) -> Tensor:
    value_bG = _called(name, term.measure, decoded_bGCHW, sources)
    return _checked(name, value_bG, tuple(decoded_bGCHW.shape[:2]), "[B, G]").to(decoded_bGCHW)


def _mapped(
    name: str, term: RewardTerm, decoded_bGCHW: Tensor, sources: Sources, grid_size: int
) -> tuple[Tensor, Tensor]:
    """The term and its map. One that cannot say where gives each token of a sample the same."""
    shape = (*decoded_bGCHW.shape[:2], grid_size**2)
    if not hasattr(term, "measure_map"):
        value_bG = _measured(name, term, decoded_bGCHW, sources)
        return value_bG, value_bG[:, :, None].expand(shape)
    value_bG, map_bGT = _called(name, term.measure_map, decoded_bGCHW, sources, grid_size)
    map_bGT = _checked(name, map_bGT, shape, "[B, G, T]").to(decoded_bGCHW)
    return _checked(name, value_bG, shape[:2], "[B, G]").to(decoded_bGCHW), map_bGT


def _called(name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return measure(*arguments)
    except (MemoryError, torch.OutOfMemoryError, JudgeError):  # not of these images
        raise
    except Exception as error:  # whatever it is, it is of one term and of these images
        raise RewardError(f"reward.{name} failed: {type(error).__name__}: {first_line(error)}") from error


def _checked(name: str, value: Any, shape: tuple[int, ...], letters: str) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        seen = f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise RewardError(f"reward.{name} gave {seen}: it must give a tensor of shape {list(shape)}, {letters}")
    return value
