"""The groups that wait for the learner are counted in groups and bytes."""

import pytest

from common.buffer.rollout_buffer import BufferedTicket, RolloutBuffer
from common.types import GroupReceipt


def ticket(ticket_id: int, num_groups: int, num_bytes: int) -> BufferedTicket:
    receipt = GroupReceipt(ticket_id, 0, num_groups, num_bytes, skipped=(), stage_seconds={})
    return BufferedTicket(receipt, groups=f"reference {ticket_id}")


def test_groups_and_bytes_are_those_of_the_tickets_inside() -> None:
    buffer = RolloutBuffer(max_bytes=100)
    assert (buffer.num_groups, buffer.num_bytes) == (0, 0)
    buffer.put(ticket(3, num_groups=8, num_bytes=60))
    buffer.put(ticket(1, num_groups=7, num_bytes=40))
    assert (buffer.num_groups, buffer.num_bytes) == (15, 100)
    assert buffer.pop(3).groups == "reference 3"
    assert (buffer.num_groups, buffer.num_bytes) == (7, 40)


def test_a_ticket_without_groups_takes_no_room() -> None:
    buffer = RolloutBuffer(max_bytes=1)
    buffer.put(ticket(0, num_groups=0, num_bytes=0))
    assert (buffer.num_groups, buffer.num_bytes) == (0, 0)
    assert buffer.pop(0).receipt.num_groups == 0


def test_more_bytes_than_the_recipe_allows_are_an_error_of_ours() -> None:
    buffer = RolloutBuffer(max_bytes=100)
    buffer.put(ticket(0, num_groups=1, num_bytes=60))
    with pytest.raises(AssertionError, match=r"buffer\.max_bytes does not hold"):
        buffer.put(ticket(1, num_groups=1, num_bytes=60))


def test_a_ticket_comes_out_once() -> None:
    buffer = RolloutBuffer(max_bytes=100)
    buffer.put(ticket(0, num_groups=1, num_bytes=1))
    buffer.pop(0)
    with pytest.raises(KeyError):
        buffer.pop(0)
