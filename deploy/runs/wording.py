"""Every kind of fact in words: its sentence in the log and in the report, its level there, its tone here.

A sentence is made of what events.jsonl holds, so that old runs can be read too.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Event = Mapping[str, Any]
Tone = Literal["", "good", "warn", "bad"]
_LEVELS = {"": logging.INFO, "good": logging.INFO, "warn": logging.WARNING, "bad": logging.ERROR}


@dataclass(frozen=True)
class Wording:
    sentence: str | Callable[[Event], str]  # a format of the event's keys, or what makes one
    tone: Tone = ""
    together: str = ""  # how the report tells {count} of them in a row; empty: each alone
    is_routine: bool = False  # left out of the log and of the newest events

    @property
    def level(self) -> int:
        return logging.DEBUG if self.is_routine else _LEVELS[self.tone]

    def of(self, event: Event) -> str:
        """Raises KeyError, TypeError or ValueError where the event lacks what the sentence says."""
        return self.sentence.format_map(event) if isinstance(self.sentence, str) else self.sentence(event)


def wording_of(event: str) -> Wording:
    """Of an event by its name; of one that nobody knows here, its name."""
    return WORDINGS.get(event) or Wording(event.replace("_", " "))


def _started(event: Event) -> str:
    return f"resumed from {event['resumed_from']}" if event.get("resumed_from") else "started"


def _learner_lost(event: Event) -> str:
    begins = f"going on from {event['resumed_from']}" if event["resumed_from"] else "beginning again"
    return f"learner lost: {event['reason']}; {begins}"


def _rank_lost(event: Event) -> str:
    who = "a learner rank that was to join" if event["rank"] is None else f"learner rank {event['rank']}"
    return f"{who} lost at step {event['step']}: {event['reason']}"


def _ticket_dropped(event: Event) -> str:
    reason = "too old" if event["reason"] == "stale" else event["reason"]
    return f"ticket {event['ticket']} dropped: {reason}"


def _image_skipped(event: Event) -> str:
    what = "quarantined" if event.get("is_quarantined") else "skipped"
    return f"image {event['image_id']} {what}: {event['reason']}"


def _rewards_flat(event: Event) -> str:
    if event["is_whole_step"]:
        return f"step {event['step']} learned nothing from the reward: all samples of each group have the same"
    return f"all samples have the same reward in {event['num_groups']} groups of step {event['step']}"


def _and_chunks(event: Event) -> str:
    chunks = event.get("chunks")  # none in files of an earlier version
    return f" and {len(chunks)} chunks of a scoring" if chunks else ""


def _scored(event: Event) -> str:
    reward = event["scores"].get("held_out_reward")
    return f"step {event['step']} scored" + ("" if reward is None else f": held-out reward {reward:.4f}")


def _yardstick_scored(event: Event) -> str:
    reward = event["scores"].get("held_out_reward")
    return f"{event['what']} scored" + ("" if reward is None else f": held-out reward {reward:.4f}")


WORDINGS = {
    "started": Wording(_started),
    "resumed": Wording("going on from step {step}"),
    "succeeded": Wording("succeeded after {steps} steps", "good"),
    "stopped": Wording("stopped after {steps} steps", "warn"),
    "failed": Wording("failed: {error}", "bad"),
    "stop_asked_for": Wording(lambda event: " by ".join(filter(None, ("asked to stop", event.get("by")))), "warn"),
    "scaled": Wording("reward actors {before} → {after}: {reason}"),
    "scale_refused": Wording("reward actors not changed to {asked}: {reason}", "warn"),
    "actor_pending": Wording("{actor} is not placed: it waits for {needs}", "warn"),
    "actor_joined": Wording("{actor} joined on {node} ({device})"),
    "actor_left": Wording("{actor} left"),
    "actor_lost": Wording(
        lambda event: f"{event['actor']} lost with {len(event['tickets'])} tickets: {event['reason']}", "bad"
    ),
    "judges_scaled": Wording("judge actors {before} → {after}: {reason}"),
    "judges_not_scaled": Wording("judge actors not changed to {asked}: {reason}", "warn"),
    "judge_pending": Wording("{actor} is not placed: it waits for {needs}", "warn"),
    "judge_joined": Wording("{actor} joined on {node} ({device})"),
    "judge_left": Wording("{actor} left"),
    "judge_lost": Wording(
        lambda event: (
            f"{event['actor']} lost with {len(event['tickets'])} tickets"
            f"{_and_chunks(event)}, judged again: {event['reason']}"
        ),
        "bad",
    ),
    "rank_pending": Wording("learner rank {rank} is not placed: it waits for {needs}", "warn"),
    "rank_joined": Wording("learner rank {rank} joined on {node} at step {step}"),
    "rank_lost": Wording(_rank_lost, "bad"),
    "learner_lost": Wording(_learner_lost, "bad"),
    "ticket_delivered": Wording(
        "ticket {ticket} delivered by {actor}", together="{count} tickets delivered", is_routine=True
    ),
    "result_refused": Wording("ticket {ticket} refused from {actor}, which had lost it", "warn"),
    "ticket_dropped": Wording(_ticket_dropped, "warn", "{count} tickets dropped, to be rolled out again"),
    "image_skipped": Wording(_image_skipped, "warn", "{count} images skipped"),
    "step_learned": Wording("step {step} learned", together="{count} steps learned", is_routine=True),
    "step_skipped": Wording(
        "update of step {step} skipped: gradient norm {grad_norm}",
        "warn",
        "{count} updates skipped, whose gradient was not finite: steps",
    ),
    "groups_quarantined": Wording(
        "{num_groups} groups quarantined in step {step}", "warn", "groups quarantined in {count} steps"
    ),
    "rewards_flat": Wording(_rewards_flat, "warn", "groups with equal rewards in {count} steps"),
    "published": Wording(
        "policy version {version} published", together="{count} policy versions published", is_routine=True
    ),
    "checkpoint": Wording("checkpoint of step {step}", together="{count} checkpoints, of steps", is_routine=True),
    "checkpoint_not_copied": Wording("checkpoint of step {step} not copied: {reason}", "bad"),
    "scoring_started": Wording("scoring {what}, of step {step}"),
    "chunk_lost": Wording(
        "chunk {chunk} of the scoring of step {version}: {reason}", "warn", "{count} chunks of a scoring lost"
    ),
    "scored": Wording(_scored),
    "yardstick_started": Wording("training with {what} for the same number of steps, as a yardstick"),
    "yardstick_scored": Wording(_yardstick_scored),
    "picture_saved": Wording("picture {path}", together="{count} pictures, of steps", is_routine=True),
    "tracker_failed": Wording("{tracker} failed, and gets nothing more: {reason}", "bad"),
    "tracking_behind": Wording("trackers are {capacity} lines behind: what comes is dropped", "bad"),
    "sink_failed": Wording("{sink} failed: {reason}", "bad"),
}
