"""The groups of a step, divided among ranks: all of them, once, in order, in equal parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from learner.shares import Piece, share


@given(data=st.data(), counts=st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_every_group_goes_to_one_rank_in_order_and_shares_are_equal(
    data: st.DataObject, counts: list[int]
) -> None:
    total = sum(counts)
    tables = [(f"table {index}", count) for index, count in enumerate(counts)]
    num_ranks = data.draw(st.integers(1, max(1, total)))
    if total < num_ranks:
        with pytest.raises(DataError):
            share(tables, num_ranks)
        return
    shares = share(tables, num_ranks)
    rows = [[(piece.groups, row) for piece in pieces for row in range(piece.start, piece.start + piece.count)]
            for pieces in shares]  # fmt: skip
    assert [row for own in rows for row in own] == [(name, row) for name, count in tables for row in range(count)]
    sizes = [len(own) for own in rows]
    assert len(sizes) == num_ranks
    assert max(sizes) - min(sizes) <= 1
    assert all(piece.count > 0 for pieces in shares for piece in pieces)


def test_a_table_is_cut_where_a_rank_ends() -> None:
    assert share([("a", 3), ("b", 0), ("c", 4)], 2) == [
        [Piece("a", 0, 3), Piece("c", 0, 1)],
        [Piece("c", 1, 3)],
    ]


def test_fewer_groups_than_ranks_are_refused_with_the_ways_out() -> None:
    with pytest.raises(DataError) as caught:
        share([("a", 1), ("b", 0)], 2)
    assert str(caught.value) == (
        "a step has 1 groups for 2 learner ranks: events.jsonl names the images that were left out, and why; "
        "mend the data set, or lower learner.num_ranks"
    )
