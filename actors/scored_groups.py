"""What a ticket came to: groups with every term of their reward, or what judges elsewhere need to complete them.

Letters: B groups, G samples per group, C, H, W of a picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from torch import Tensor

from common.finite import non_finite_groups, take_rows
from common.judged_pictures import JudgedPictures
from common.reward_terms import RewardTerms
from common.schema import GroupBatch, to_table
from common.types import GroupReceipt, SkippedImage


@dataclass(frozen=True)
class UnjudgedGroups:
    """All groups of a ticket, sound or not, without the terms that judges elsewhere measure."""

    groups: GroupBatch
    failures: Mapping[int, str]  # by row, what is wrong with a group already
    skipped: tuple[SkippedImage, ...]  # images without a group
    pictures_BGCHW: np.ndarray  # uint8
    is_sound_BG: np.ndarray  # bool: the decoder gave numbers alone
    images_BHWC: np.ndarray  # uint8, the source images; [B, 0, 0, 3] of free-running groups
    texts: tuple[str, ...]

    @property
    def num_pictures(self) -> int:
        return self.is_sound_BG.size

    def of_others(self, pictures: JudgedPictures) -> Self:
        """The same with other pictures of the same images."""
        pixels, is_sound = pictures.pixels_BGCHW.cpu().numpy(), pictures.is_sound_BG.cpu().numpy()
        return replace(self, pictures_BGCHW=pixels, is_sound_BG=is_sound)

    def with_terms(self, terms: RewardTerms) -> "ScoredGroups":
        """The groups with these beside the terms that they have."""
        groups = replace(
            self.groups,
            reward_terms={**self.groups.reward_terms, **arrays(terms.terms)},
            reward_maps={**self.groups.reward_maps, **arrays(terms.maps)},
            missed={**self.groups.missed, **missed_arrays(terms)},
            higher_is_better=self.groups.higher_is_better | terms.higher_is_better,
        )
        return without_unsound(groups, {**terms.failures, **self.failures}, self.skipped)


@dataclass(frozen=True)
class ScoredGroups:
    """What became of the samples asked for."""

    groups: GroupBatch | None  # None if no image gave a group
    skipped: tuple[SkippedImage, ...]
    unjudged: UnjudgedGroups | None = None  # instead of groups, where judges are elsewhere

    def on(self, receipt: GroupReceipt) -> tuple[GroupReceipt, pa.Table | None]:
        """The ticket's receipt with what it says of them, and their table."""
        table = None if self.groups is None else to_table(self.groups)
        told = replace(
            receipt,
            num_groups=0 if self.groups is None else len(self.groups),
            num_tokens=0 if self.groups is None else self.groups.num_tokens_sampled,
            num_bytes=0 if table is None else table.nbytes,
            skipped=self.skipped,
        )
        return told, table


def without_unsound(
    groups: GroupBatch, failures: Mapping[int, str], skipped: tuple[SkippedImage, ...]
) -> ScoredGroups:
    """The groups that can be learned from; the others are named after the images that were `skipped` before."""
    bad = non_finite_groups(groups) | dict(failures)
    if not bad:
        return ScoredGroups(groups, skipped)
    quarantined = tuple(
        SkippedImage(int(groups.sample_index_B[row]), groups.image_id_B[row], reason, is_quarantined=True)
        for row, reason in sorted(bad.items())
    )
    sound = [row for row in range(len(groups)) if row not in bad]
    return ScoredGroups(take_rows(groups, sound) if sound else None, skipped + quarantined)


def arrays(columns: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: column.cpu().numpy() for name, column in columns.items()}


def missed_arrays(terms: RewardTerms) -> dict[str, np.ndarray]:
    """uint8 [B, G] by name."""
    return {name: missed_BG.byte().cpu().numpy() for name, missed_BG in terms.missed.items()}
