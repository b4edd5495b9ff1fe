"""Credit by gradient, as facts: what groups hold so that every codebook entry can be priced at every place.

To first order the reward changes by Q_t(v) = w_t · (e_v - ē_t) where the token at place t becomes the entry v.

Letters: B groups, T image tokens, V codebook entries, D numbers of a code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from common.protocols import ImageTokenizer


@dataclass(frozen=True)
class CodeCredit:
    gradient_BTD: Tensor  # float32; w: the weighted reward's gradient at the sampled codes, mean over samples
    mean_code_BTD: Tensor  # float32; ē: the sampled codes, mean over samples
    spread_BT: Tensor  # float32; standard deviation of Q under the policy that sampled

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> Self:
        """From the columns of a table of groups, by name."""
        return cls(columns["gradient"], columns["mean_code"], columns["spread"])

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The groups of all parts, in order."""
        return cls(*(torch.cat(column) for column in zip(*(vars(part).values() for part in parts), strict=True)))

    @property
    def columns(self) -> dict[str, Tensor]:
        return {"gradient": self.gradient_BTD, "mean_code": self.mean_code_BTD, "spread": self.spread_BT}


@torch.no_grad()
def codebook_codes(tokenizer: ImageTokenizer, device: torch.device) -> Tensor:
    """The vectors of all codebook entries, float32 [V, D]."""
    return tokenizer.codes(torch.arange(tokenizer.codebook_size, device=device)).float()
