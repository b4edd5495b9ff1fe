"""The status for people to read."""

import io
from typing import Any

from deploy.runs.status_text import show, status_text

ACTOR = {
    "node": "10.0.0.5", "code": "0123456789ab", "calls": 2, "is_leaving": False, "policy_version": 6,
    "groups_per_second": 12.34,
}  # fmt: skip
NEW = {"node": "", "code": "", "calls": 0, "is_leaving": False, "policy_version": None, "groups_per_second": None}
STATUS: dict[str, Any] = {
    "step": 7,
    "num_steps": 60,
    "eta_seconds": 130.0,
    "groups_learned": 448,
    "policy_version": 7,
    "buffer_capacity": 128,
    "groups_buffered": 16,
    "last_checkpoint": {"step": 5, "seconds_ago": 42.0},
    "actors": {"actor-0": ACTOR, "actor-1": ACTOR | {"is_leaving": True}, "actor-12": NEW},
    "actors_wanted": 2,
    "actor_restarts": 1,
    "recent_events": [
        {"time": "2026-01-02T03:04:05+00:00", "event": "scaled", "before": 2, "after": 3, "reason": "asked for"}
    ],
    "last_step": {
        "num_groups": 64, "step_seconds": 4.0, "wait_seconds": 1.0, "reward_mean": -0.05, "ce_prior": 1.5,
        "staleness_mean": 0.25, "staleness_max": 1,
    },
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_running_job_in_full() -> None:
    lines = status_text(STATUS).splitlines()
    assert lines[:-1] == [
        "step        7 of 60, 2 min left",
        "learned     448 groups, policy version 7",
        "last step   4.0 s, 16.0 groups/s, learner waited 25%",
        "            reward -0.0500, cross-entropy 1.500",
        "staleness   0.25 versions on average, 1 at most",
        "buffer      16 of 128 groups",
        "checkpoint  step 5, 42 s ago",
        "",
        "actors      2 ready, 2 wanted, 1 restarts",
        "  actor     node      code          version  groups/s  tickets",
        "  actor-0   10.0.0.5  0123456789ab  6        12.3      2",
        "  actor-1   10.0.0.5  0123456789ab  6        12.3      2        leaving",
        "  actor-12  -         -             -        -         0        not ready",
        "",
        "recent events",
    ]
    assert lines[-1].endswith("scaled  before 2, after 3, reason asked for")


def test_a_job_before_its_first_step() -> None:
    assert status_text({}) == "starting: it has not begun to train"
    early = STATUS | {"last_step": {}, "eta_seconds": None, "last_checkpoint": None, "recent_events": []}
    text = status_text(early)
    assert "time left unknown" in text
    assert "checkpoint  none yet" in text
    assert "staleness" not in text
    assert "recent events" not in text


def test_a_terminal_is_written_over_and_a_file_is_appended_to() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        show("a\nb", stream)
    assert terminal.getvalue() == "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"
    assert file.getvalue() == "a\nb\n\n"
