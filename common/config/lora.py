"""Low-rank adapters (LoRA, arXiv 2106.09685): how many numbers are trained, and beside which layers."""

from typing import Self

from pydantic import Field, model_validator

from common.config.base import Section


class LoraSection(Section):
    """Train low-rank adapters beside frozen linear layers, W x + (alpha / rank) B A x, in place of the policy.

    Only they are published to actors and kept in checkpoints; where both autocasts are bfloat16, so are the frozen
    layers' weights in memory.
    """

    rank: int = Field(default=16, gt=0)
    """Rows of A, columns of B. An adapter has rank · (inputs + outputs) numbers."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapters' output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before A, as others have it. It must be 0: the policy that learns is the one that sampled."""
    targets: tuple[str, ...] = ()
    """The linear layers that get an adapter, by the last parts of their names, such as [wqkv, wo]. Empty: all of
    the transformer blocks. `check` names them."""

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.dropout:
            raise ValueError(
                f"learner.lora.dropout is {self.dropout:g}, and the policy that learns would no longer be the one "
                "that sampled: ratios would not be 1 on fresh groups, and G samples would need G forwards; set "
                "learner.lora.dropout=0, and a lower learner.lora.rank or a higher learner.ce_weight to regularise"
            )
        return self
