"""The table of scored groups that travels from actors to the learner: one Arrow row per group.

Rows hold facts, not decisions: the reward's terms, not its weights; rewards, not advantages. A recorded table can
be learned from again with other settings. Credit by gradient is the exception: its weights are the actor's too,
who takes the gradient of the weighted sum, and the table says which they were.

Letters: T image tokens, G samples per group, V codebook entries, B rows.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from common.config.rollout import Kind
from common.errors import DataError

SCHEMA_VERSION = 3  # 3: the terms of the reward by name


@dataclass(frozen=True)
class GroupBatch:
    """The groups of one ticket, as arrays."""

    sample_index_B: np.ndarray  # int64; identifies the group in the run
    image_id_B: tuple[str, ...]
    policy_version: int  # of the policy that sampled
    codebook_size: int  # V
    context_tokens_BT: np.ndarray  # int32 [B, T-1], or [B, T] if whole; the noisy teacher-forcing input
    target_tokens_BT: np.ndarray  # int32 [B, T]; the source image's codes. Both [B, 0] of free-running groups
    sampled_tokens_BGT: np.ndarray  # int32 [B, G, T]; G is 0 where the learner alone takes samples
    behaviour_logprobs_BGT: np.ndarray  # float32 [B, G, T]
    condition: Mapping[str, np.ndarray]  # what the policy was conditioned on, [B, …] per column
    reward_terms: Mapping[str, np.ndarray]  # float32 [B, G] by name; a term that was not measured is absent
    reward_maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    """float32 [B, G, T] by name: where in the picture a term comes from, under token credit alone."""
    missed: Mapping[str, np.ndarray] = field(default_factory=dict)
    """uint8 [B, G] by name: 1 where a judge gave a sample no score; of judges that may miss one."""
    credit: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Under credit by gradient alone, float32: gradient and mean_code [B, T, D], spread [B, T]; see `CodeCredit`.
    Tokens and log-probabilities are then those of one sample, unless a term without a gradient compares all G."""
    source: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The images themselves, where the learner compares pictures with them: pixels, uint8 [B, H, W, 3]."""
    gradient_weights: Mapping[str, float] = field(default_factory=dict)
    """The one decision that rows hold: the weights of the terms in that gradient, which the actor weighed."""
    higher_is_better: frozenset[str] = frozenset()  # names of terms
    rollout: Kind = "teacher_forced"  # free_running: each sample is its own context

    def __len__(self) -> int:
        return len(self.image_id_B)

    @property
    def group_size(self) -> int:
        """G; as many tokens and log-probabilities are kept unless all credit is by gradient, and then one."""
        for term_BG in self.reward_terms.values():
            return term_BG.shape[1]
        return self.sampled_tokens_BGT.shape[1]

    @property
    def num_tokens_sampled(self) -> int:
        """Of all groups and samples."""
        return self.group_size * len(self) * self.num_tokens

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.sampled_tokens_BGT.shape[2]


_TENSOR_COLUMNS = {
    "context_tokens": "context_tokens_BT",
    "target_tokens": "target_tokens_BT",
    "sampled_tokens": "sampled_tokens_BGT",
    "behaviour_logprobs": "behaviour_logprobs_BGT",
}
# Columns of a name each: the field, and what stands before the name in the table.
_NAMED_COLUMNS = {
    "condition": "condition.",
    "reward_terms": "reward.",
    "reward_maps": "reward_map.",
    "missed": "missed.",
    "credit": "credit.",
    "source": "source.",
}


def to_table(groups: GroupBatch) -> pa.Table:
    """The Arrow table of `groups`; the tensor columns' types keep the shapes."""
    columns = {
        "sample_index": pa.array(groups.sample_index_B, pa.int64()),
        "image_id": pa.array(groups.image_id_B, pa.string()),
        "policy_version": pa.array([groups.policy_version] * len(groups), pa.int64()),
    }
    tensors = {name: getattr(groups, field) for name, field in _TENSOR_COLUMNS.items()}
    columns |= {name: _tensor_column(array) for name, array in tensors.items() if array.size}
    for named, prefix in _NAMED_COLUMNS.items():
        columns |= {prefix + name: _tensor_column(value) for name, value in getattr(groups, named).items()}
    facts = {
        "schema_version": SCHEMA_VERSION,
        "G": groups.group_size,
        "T": groups.num_tokens,
        "V": groups.codebook_size,
        "higher_is_better": " ".join(sorted(groups.higher_is_better)),
        "rollout": groups.rollout,
    }
    if groups.gradient_weights:
        facts["gradient_weights"] = json.dumps(dict(groups.gradient_weights))
    return pa.table(columns).replace_schema_metadata({key: str(value) for key, value in facts.items()})


def from_table(table: pa.Table) -> GroupBatch:
    """The groups of a table; arrays are read-only views of it where the table is in one piece."""
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    version = metadata["schema_version"]
    if version != str(SCHEMA_VERSION):
        raise DataError(
            f"these groups have schema version {version}, this code reads {SCHEMA_VERSION}: learn from them with "
            "the code that wrote them"
        )
    table = table.combine_chunks()
    B, T = len(table), int(metadata["T"])
    columns: dict[str, Any] = {  # Arrow has no tensors without numbers
        "context_tokens_BT": np.zeros((B, 0), np.int32),
        "target_tokens_BT": np.zeros((B, 0), np.int32),
        "sampled_tokens_BGT": np.zeros((B, 0, T), np.int32),
        "behaviour_logprobs_BGT": np.zeros((B, 0, T), np.float32),
    }
    columns |= {
        field: _array(table[name]) for name, field in _TENSOR_COLUMNS.items() if name in table.column_names
    }
    columns |= {field: _named(table, prefix) for field, prefix in _NAMED_COLUMNS.items()}
    return GroupBatch(
        sample_index_B=table["sample_index"].to_numpy(),
        image_id_B=tuple(table["image_id"].to_pylist()),
        policy_version=table["policy_version"][0].as_py(),
        codebook_size=int(metadata["V"]),
        higher_is_better=frozenset(metadata["higher_is_better"].split()),
        gradient_weights=json.loads(metadata.get("gradient_weights", "{}")),
        rollout=cast(Kind, metadata.get("rollout", "teacher_forced")),
        **columns,
    )


def by_rollout(batches: Iterable[GroupBatch]) -> list[GroupBatch]:
    """One batch of each kind of rollout that there is, teacher-forced groups first."""
    kinds: dict[str, list[GroupBatch]] = {}
    for batch in batches:
        kinds.setdefault(batch.rollout, []).append(batch)
    return [concatenate(kinds[kind]) for kind in sorted(kinds, reverse=True)]


def concatenate(batches: list[GroupBatch]) -> GroupBatch:
    """One batch of all rows, in order, of one kind of rollout. Its policy version is the oldest."""

    def joined(field: str) -> np.ndarray:
        return np.concatenate([getattr(batch, field) for batch in batches])

    def named(field: str) -> dict[str, np.ndarray]:
        columns = [getattr(batch, field) for batch in batches]
        return {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}

    columns: dict[str, Any] = {field: joined(field) for field in ("sample_index_B", *_TENSOR_COLUMNS.values())}
    columns |= {field: named(field) for field in _NAMED_COLUMNS}
    return GroupBatch(
        image_id_B=tuple(image_id for batch in batches for image_id in batch.image_id_B),
        policy_version=min(batch.policy_version for batch in batches),
        codebook_size=batches[0].codebook_size,
        higher_is_better=batches[0].higher_is_better,
        gradient_weights=batches[0].gradient_weights,
        rollout=batches[0].rollout,
        **columns,
    )


def changed(groups: GroupBatch, change: Callable[[np.ndarray], np.ndarray], fields: Iterable[str]) -> GroupBatch:
    """The groups with `change` made to the arrays of `fields`, and to each of those that have names."""
    arrays: dict[str, Any] = {}
    for each in fields:
        value = getattr(groups, each)
        is_named = isinstance(value, Mapping)
        arrays[each] = {name: change(column) for name, column in value.items()} if is_named else change(value)
    return replace(groups, **arrays)


ARRAYS = ("sample_index_B", *_TENSOR_COLUMNS.values(), *_NAMED_COLUMNS)
"""The fields of a GroupBatch that have a row per group."""


def _named(table: pa.Table, prefix: str) -> dict[str, np.ndarray]:
    names = [name for name in table.column_names if name.startswith(prefix)]
    return {name.removeprefix(prefix): _array(table[name]) for name in names}


def _tensor_column(array: np.ndarray) -> pa.Array:
    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def _array(column: pa.ChunkedArray) -> np.ndarray:
    (chunk,) = column.chunks
    if isinstance(chunk, pa.FixedShapeTensorArray):
        return chunk.to_numpy_ndarray()
    return chunk.to_numpy()
