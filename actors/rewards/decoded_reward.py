"""The reward: what the decoded samples are worth. Actors record its terms; the learner applies the weights.

    r = -(mse · mean((Î - I)²) + lpips · LPIPS(Î, I) + l1 · mean |Î - I|) + …

against the original image, not its reconstruction; images in [-1, 1], the decoder's output not clamped.

Letters: B images, G samples per image, T image tokens, C, H, W of a picture.
"""

from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from actors.rewards.term import RewardTerm, Sources
from common.clock import StageClock
from common.config.algorithm import RewardSection
from common.errors import JudgeError, RewardError, first_line
from common.protocols import ImageTokenizer
from common.reward_terms import RewardTerms, without_misses


class DecodedReward:
    def __init__(
        self,
        tokenizer: ImageTokenizer,
        terms: Mapping[str, RewardTerm],
        section: RewardSection,
        has_maps: bool = False,
    ):
        """With maps every term also says where in the picture it comes from, as far as it can."""
        self.tokenizer = tokenizer
        self._terms = terms
        self._section = section  # of which the weights do not matter here
        self._has_maps = has_maps
        self._higher_is_better = frozenset(name for name, term in terms.items() if term.higher_is_better)

    def measure(self, sampled_tokens_BGT: Tensor, sources: Sources, clock: StageClock) -> RewardTerms:
        """The terms of each sample, and the maps where there are to be any.

        An image that a term fails on is among the `failures`, by the name of the term.
        """
        B, G, T = sampled_tokens_BGT.shape
        grid_size = isqrt(T) if self._has_maps else None
        parts: list[RewardTerms] = []
        images_per_chunk = max(1, self._section.decode_batch_size // G)
        for start in range(0, B, images_per_chunk) if self._terms else ():
            chunk = slice(start, start + images_per_chunk)
            with clock("decode"):
                decoded_NCHW = self.tokenizer.decode(sampled_tokens_BGT[chunk].flatten(0, 1))
                decoded_bGCHW = decoded_NCHW.float().unflatten(0, (-1, G))
            parts.append(self._measured(decoded_bGCHW, sources[chunk], grid_size, clock))
        return RewardTerms.joined(parts) if parts else RewardTerms((B, G))

    def _measured(
        self, decoded_bGCHW: Tensor, sources: Sources, grid_size: int | None, clock: StageClock
    ) -> RewardTerms:
        """Where a term fails on some images, they are measured one by one to find which."""
        try:
            return self._all_terms(decoded_bGCHW, sources, grid_size, clock)
        except RewardError as error:
            num_images, num_samples = decoded_bGCHW.shape[:2]
            if num_images == 1:
                return self._failed(num_samples, grid_size, str(error), decoded_bGCHW)
        images = [slice(image, image + 1) for image in range(num_images)]
        return RewardTerms.joined(
            [self._measured(decoded_bGCHW[image], sources[image], grid_size, clock) for image in images]
        )

    def _all_terms(
        self, decoded_bGCHW: Tensor, sources: Sources, grid_size: int | None, clock: StageClock
    ) -> RewardTerms:
        B, G = decoded_bGCHW.shape[:2]
        maps: dict[str, Tensor] = {}
        if grid_size is None:
            terms = self._terms_of(self._terms, decoded_bGCHW, sources, clock)
        else:
            terms = {}
            for name, term in self._terms.items():
                with clock(term.stage):
                    terms[name], maps[name] = _mapped(name, term, decoded_bGCHW, sources, grid_size)
        missed, failures = self._without_misses(terms, maps)
        return RewardTerms((B, G), terms, maps, self._higher_is_better, failures, missed)

    def _without_misses(
        self, terms: dict[str, Tensor], maps: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[int, str]]:
        """Fills, in place, what judges missed. Returns where, and the groups with too little left to compare."""
        missed, failures = {}, {}
        for name in (name for name, term in self._terms.items() if getattr(term, "may_miss", False)):
            terms[name], missed[name] = without_misses(terms[name])
            if name in maps:
                maps[name] = terms[name][:, :, None].expand_as(maps[name])
            for group in terms[name].isnan().any(dim=1).nonzero()[:, 0].tolist():
                num, size = int((~missed[name][group]).sum()), missed[name].shape[1]
                failures[group] = f"reward.{name} scored {num} of {size} samples"
        return missed, failures

    def _terms_of(
        self, terms: Mapping[str, RewardTerm], decoded_bGCHW: Tensor, sources: Sources, clock: StageClock
    ) -> dict[str, Tensor]:
        measured = {}
        for name, term in terms.items():
            with clock(term.stage):
                measured[name] = _measured(name, term, decoded_bGCHW, sources)
        return measured

    def _failed(self, num_samples: int, grid_size: int | None, reason: str, like: Tensor) -> RewardTerms:
        nothing_1G = like.new_full((1, num_samples), float("nan"))
        terms = dict.fromkeys(self._terms, nothing_1G)
        maps = (
            {}
            if grid_size is None
            else {name: nothing_1G[:, :, None].expand(-1, -1, grid_size**2) for name in terms}
        )
        return RewardTerms(
            (1, num_samples), terms, maps, self._higher_is_better, {0: reason}, self._none_missed(like)
        )

    def _none_missed(self, decoded_bGCHW: Tensor) -> dict[str, Tensor]:
        names = [name for name, term in self._terms.items() if getattr(term, "may_miss", False)]
        shape = decoded_bGCHW.shape[:2]
        return dict.fromkeys(names, torch.zeros(shape, dtype=torch.bool, device=decoded_bGCHW.device))


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
