"""What a run left in its folder."""

import json
from pathlib import Path
from typing import Any


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; none where it is not there yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in lines(run / "events.jsonl") if event["event"] == kind]


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def digest(run: Path) -> str:
    return summary(run)["weights_sha256"]


def learned_tickets(run: Path) -> list[int]:
    """The account: every ticket that the weights of the end have learned from, as often as they have.

    Where a run goes on from a checkpoint, what it had learned after that counts no more.
    """
    learned: dict[int, list[int]] = {}
    for event in lines(run / "events.jsonl"):
        if event["event"] == "step_learned":
            assert event["step"] not in learned
            learned[event["step"]] = event["tickets"]
        elif event["event"] in ("started", "learner_lost"):
            learned = {step: tickets for step, tickets in learned.items() if step <= event["step"]}
    assert sorted(learned) == list(range(1, len(learned) + 1))
    return sorted(ticket for tickets in learned.values() for ticket in tickets)
