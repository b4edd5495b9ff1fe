"""The table of scored groups that travels from actors to the learner: one Arrow row per group.

Rows hold facts, not decisions: the reward's terms, not its weights; rewards, not advantages. A recorded table can
be learned from again with other settings.

Letters: T image tokens, G samples per group, V codebook entries, B rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

SCHEMA_VERSION = 2  # 2 added the optional reward_l1 and reward maps


@dataclass(frozen=True)
class GroupBatch:
    """The groups of one ticket, as arrays."""

    sample_index_B: np.ndarray  # int64; identifies the group in the run
    image_id_B: tuple[str, ...]
    policy_version: int  # of the policy that sampled
    codebook_size: int  # V
    context_tokens_BT: np.ndarray  # int32 [B, T-1]; the noisy teacher-forcing input
    target_tokens_BT: np.ndarray  # int32 [B, T]; the source image's codes
    sampled_tokens_BGT: np.ndarray  # int32 [B, G, T]
    behaviour_logprobs_BGT: np.ndarray  # float32 [B, G, T]
    reward_mse_BG: np.ndarray  # float32 [B, G]; mean squared error, images in [-1, 1]
    reward_lpips_BG: np.ndarray  # float32 [B, G]; perceptual distance
    condition: Mapping[str, np.ndarray]  # the policy's condition, each column [B, …]
    reward_l1_BG: np.ndarray | None = None  # float32 [B, G]; mean absolute error, if l1_weight is above 0
    reward_mse_map_BGT: np.ndarray | None = None  # float32 [B, G, T]; the term at each place in the picture, only
    reward_lpips_map_BGT: np.ndarray | None = None  # under token credit; the mean of a map is the term
    reward_l1_map_BGT: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_id_B)


_TENSOR_COLUMNS = {
    "context_tokens": "context_tokens_BT",
    "target_tokens": "target_tokens_BT",
    "sampled_tokens": "sampled_tokens_BGT",
    "behaviour_logprobs": "behaviour_logprobs_BGT",
    "reward_mse": "reward_mse_BG",
    "reward_lpips": "reward_lpips_BG",
}
_OPTIONAL_COLUMNS = {
    "reward_l1": "reward_l1_BG",
    "reward_mse_map": "reward_mse_map_BGT",
    "reward_lpips_map": "reward_lpips_map_BGT",
    "reward_l1_map": "reward_l1_map_BGT",
}
_CONDITION = "condition."


def to_table(groups: GroupBatch) -> pa.Table:
    """The Arrow table of `groups`; the tensor columns' types keep the shapes."""
    columns = {
        "sample_index": pa.array(groups.sample_index_B, pa.int64()),
        "image_id": pa.array(groups.image_id_B, pa.string()),
        "policy_version": pa.array([groups.policy_version] * len(groups), pa.int64()),
    }
    columns |= {name: _tensor_column(getattr(groups, field)) for name, field in _columns_of(groups).items()}
    columns |= {_CONDITION + name: _tensor_column(value) for name, value in groups.condition.items()}
    _, G, T = groups.sampled_tokens_BGT.shape
    facts = {"schema_version": SCHEMA_VERSION, "G": G, "T": T, "V": groups.codebook_size}
    return pa.table(columns).replace_schema_metadata({key: str(value) for key, value in facts.items()})


def from_table(table: pa.Table) -> GroupBatch:
    """The groups of a table; arrays are read-only views of it if each column is one chunk."""
    metadata = {key.decode(): int(value) for key, value in table.schema.metadata.items()}
    if metadata["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"these groups have schema version {metadata['schema_version']}, this code reads {SCHEMA_VERSION}: "
            "learn from them with the code that wrote them"
        )
    table = table.combine_chunks()
    return GroupBatch(
        sample_index_B=table["sample_index"].to_numpy(),
        image_id_B=tuple(table["image_id"].to_pylist()),
        policy_version=table["policy_version"][0].as_py(),
        codebook_size=metadata["V"],
        condition={
            name.removeprefix(_CONDITION): _array(table[name])
            for name in table.column_names
            if name.startswith(_CONDITION)
        },
        **{
            field: _array(table[name])
            for name, field in (_TENSOR_COLUMNS | _OPTIONAL_COLUMNS).items()
            if name in _TENSOR_COLUMNS or name in table.column_names
        },
    )


def concatenate(batches: list[GroupBatch]) -> GroupBatch:
    """All rows in one batch, in order. Its policy version is the oldest."""
    arrays = {
        field: np.concatenate([getattr(batch, field) for batch in batches])
        for field in ("sample_index_B", *_columns_of(batches[0]).values())
    }
    return GroupBatch(
        image_id_B=tuple(image_id for batch in batches for image_id in batch.image_id_B),
        policy_version=min(batch.policy_version for batch in batches),
        codebook_size=batches[0].codebook_size,
        condition={name: np.concatenate([b.condition[name] for b in batches]) for name in batches[0].condition},
        **arrays,
    )


def _columns_of(groups: GroupBatch) -> dict[str, str]:
    present = {name: field for name, field in _OPTIONAL_COLUMNS.items() if getattr(groups, field) is not None}
    return _TENSOR_COLUMNS | present


def reward_columns(groups: GroupBatch) -> dict[str, np.ndarray]:
    """The reward terms and maps that the groups have, by their names in `RewardTerms`."""
    fields = {name: field for name, field in _columns_of(groups).items() if name.startswith("reward_")}
    return {field.removeprefix("reward_"): getattr(groups, field) for field in fields.values()}


def _tensor_column(array: np.ndarray) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def _array(column: pa.ChunkedArray) -> np.ndarray:
    (chunk,) = column.chunks
    if isinstance(chunk, pa.FixedShapeTensorArray):
        return chunk.to_numpy_ndarray()
    return chunk.to_numpy()
