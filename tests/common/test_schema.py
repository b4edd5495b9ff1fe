"""Groups as Arrow tables: what goes in comes out, on this side of a buffer or on the other.

Letters: B rows, G samples a group, T image tokens, V codebook entries.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataError
from common.schema import SCHEMA_VERSION, GroupBatch, concatenate, from_table, to_table

V = 20


def groups(B: int, G: int = 3, T: int = 4, version: int = 5, seed: int = 0) -> GroupBatch:
    draws = np.random.default_rng(seed)
    return GroupBatch(
        sample_index_B=draws.integers(2**40, size=B),
        image_id_B=tuple(f"Ä{row}.png" for row in range(B)),
        policy_version=version,
        codebook_size=V,
        context_tokens_BT=draws.integers(V, size=(B, T - 1), dtype=np.int32),
        target_tokens_BT=draws.integers(V, size=(B, T), dtype=np.int32),
        sampled_tokens_BGT=draws.integers(V, size=(B, G, T), dtype=np.int32),
        behaviour_logprobs_BGT=draws.standard_normal((B, G, T), dtype=np.float32),
        condition={
            "label": draws.integers(10, size=B),
            "caption_features": draws.standard_normal((B, 2, 3), dtype=np.float32),
        },
        reward_terms={name: draws.random((B, G), dtype=np.float32) for name in ("mse", "lpips", "sharpness")},
        higher_is_better=frozenset({"sharpness"}),
    )


def through_a_buffer(table: pa.Table) -> pa.Table:
    """Written to bytes as Arrow IPC and read back, as another process would."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def assert_equal(one: GroupBatch, other: GroupBatch) -> None:
    for name, value in vars(one).items():
        expected = vars(other)[name]
        columns = (value, expected) if isinstance(value, Mapping) else ({"": value}, {"": expected})
        assert list(columns[0]) == list(columns[1]), name
        for key, column in columns[0].items():
            if isinstance(column, np.ndarray):
                assert column.dtype == columns[1][key].dtype, (name, key)
                np.testing.assert_array_equal(column, columns[1][key], err_msg=f"{name} {key}")
            else:
                assert column == columns[1][key], name


@given(B=st.integers(1, 5), G=st.integers(2, 4), T=st.integers(2, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_groups_come_back_as_they_went(B: int, G: int, T: int, seed: int) -> None:
    batch = groups(B, G, T, seed=seed)
    assert_equal(from_table(through_a_buffer(to_table(batch))), batch)


def test_a_row_is_a_group_and_columns_keep_dtype_and_shape() -> None:
    table = to_table(groups(B=2, G=3, T=4))
    assert table.num_rows == 2
    assert table.column_names == [
        "sample_index",
        "image_id",
        "policy_version",
        "context_tokens",
        "target_tokens",
        "sampled_tokens",
        "behaviour_logprobs",
        "condition.label",
        "condition.caption_features",
        "reward.mse",
        "reward.lpips",
        "reward.sharpness",
    ]
    types = {field.name: field.type for field in table.schema}
    assert types["context_tokens"] == pa.fixed_shape_tensor(pa.int32(), [3])
    assert types["sampled_tokens"] == pa.fixed_shape_tensor(pa.int32(), [3, 4])
    assert types["behaviour_logprobs"] == pa.fixed_shape_tensor(pa.float32(), [3, 4])
    assert types["condition.label"] == pa.int64()
    assert types["reward.sharpness"] == pa.fixed_shape_tensor(pa.float32(), [3])


def test_the_schema_names_its_version_and_the_sizes() -> None:
    metadata = to_table(groups(B=2, G=3, T=4)).schema.metadata
    sizes = {b"G": b"3", b"T": b"4", b"V": b"20"}
    facts = {b"higher_is_better": b"sharpness", b"rollout": b"teacher_forced"}
    assert metadata == {b"schema_version": b"3", **sizes, **facts}


def with_maps(B: int, seed: int = 0) -> GroupBatch:
    batch, draws = groups(B, seed=seed), np.random.default_rng(seed)
    terms = {**batch.reward_terms, "l1": draws.random((B, 3), dtype=np.float32)}
    maps = {name: draws.random((B, 3, 4), dtype=np.float32) for name in ("mse", "lpips", "l1")}
    return replace(batch, reward_terms=terms, reward_maps=maps)


def test_the_absolute_error_and_the_maps_travel_where_there_are_any() -> None:
    batches = [with_maps(2), with_maps(1, seed=1)]
    tables = [to_table(batch) for batch in batches]
    optional = {"reward.l1", "reward_map.mse", "reward_map.lpips", "reward_map.l1"}
    assert set(tables[0].column_names) - set(to_table(groups(2)).column_names) == optional
    assert tables[0].schema.field("reward_map.mse").type == pa.fixed_shape_tensor(pa.float32(), [3, 4])
    joined = from_table(through_a_buffer(pa.concat_tables(tables)))
    assert_equal(joined, concatenate(batches))
    assert from_table(to_table(groups(2))).reward_maps == {}


def test_a_slice_of_a_table_is_its_rows() -> None:
    batch = groups(B=4)
    middle = from_table(to_table(batch).slice(1, 2))
    assert middle.image_id_B == batch.image_id_B[1:3]
    np.testing.assert_array_equal(middle.sampled_tokens_BGT, batch.sampled_tokens_BGT[1:3])
    np.testing.assert_array_equal(middle.condition["label"], batch.condition["label"][1:3])
    np.testing.assert_array_equal(middle.reward_terms["lpips"], batch.reward_terms["lpips"][1:3])


def test_a_table_in_pieces_is_read_as_one() -> None:
    one, other = groups(B=2, seed=0), groups(B=1, seed=1)
    together = from_table(pa.concat_tables([to_table(one), to_table(other)]))
    assert_equal(together, concatenate([one, other]))


def test_reading_copies_no_tensors() -> None:
    table = to_table(groups(B=2))
    assert not from_table(table).sampled_tokens_BGT.flags.owndata


def test_groups_of_another_schema_version_are_refused() -> None:
    table = to_table(groups(B=1))
    metadata = table.schema.metadata | {b"schema_version": str(SCHEMA_VERSION + 1).encode()}
    with pytest.raises(DataError) as caught:
        from_table(through_a_buffer(table.replace_schema_metadata(metadata)))
    assert str(caught.value) == (
        "these groups have schema version 4, this code reads 3: learn from them with the code that wrote them"
    )


def test_joined_batches_keep_their_order_and_the_oldest_version() -> None:
    batches = [groups(2, version=7, seed=0), groups(1, version=6, seed=1), groups(1, version=9, seed=2)]
    joined = concatenate(batches)
    assert len(joined) == 4
    assert joined.policy_version == 6
    assert joined.sample_index_B.tolist() == [index for batch in batches for index in batch.sample_index_B]
    assert joined.image_id_B == ("Ä0.png", "Ä1.png", "Ä0.png", "Ä0.png")
    np.testing.assert_array_equal(
        joined.condition["caption_features"][2], batches[1].condition["caption_features"][0]
    )
    np.testing.assert_array_equal(joined.reward_terms["lpips"][2], batches[1].reward_terms["lpips"][0])
    assert joined.higher_is_better == {"sharpness"}


def test_one_batch_joined_is_itself() -> None:
    batch = groups(3)
    assert_equal(concatenate([replace(batch)]), batch)


def with_gradients(B: int, seed: int = 0) -> GroupBatch:
    """Of three samples with one kept, and codes of two numbers."""
    batch, draws = groups(B, G=3, seed=seed), np.random.default_rng(seed)
    credit = {name: draws.random((B, 4, 2), dtype=np.float32) for name in ("gradient", "mean_code")}
    return replace(
        batch,
        sampled_tokens_BGT=batch.sampled_tokens_BGT[:, :1],
        behaviour_logprobs_BGT=batch.behaviour_logprobs_BGT[:, :1],
        credit=credit | {"spread": draws.random((B, 4), dtype=np.float32)},
        gradient_weights={"mse": 1.0, "lpips": 0.1},
    )


def test_gradients_travel_with_the_weights_that_are_in_them() -> None:
    batch = with_gradients(3)
    table = through_a_buffer(to_table(batch))
    assert_equal(from_table(table), batch)
    assert {"credit.gradient", "credit.mean_code", "credit.spread"} <= set(table.column_names)
    assert table.schema.metadata[b"G"] == b"3"
    assert table.schema.metadata[b"gradient_weights"] == b'{"mse": 1.0, "lpips": 0.1}'
    whole = concatenate([batch, with_gradients(2, seed=1)])
    assert (len(whole), whole.group_size, whole.num_tokens_sampled) == (5, 3, 5 * 3 * 4)
    assert whole.credit["gradient"].shape == (5, 4, 2)
    assert whole.gradient_weights == {"mse": 1.0, "lpips": 0.1}
    assert (groups(2).credit, groups(2).gradient_weights) == ({}, {})
