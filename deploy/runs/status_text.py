"""The status of a running job for people to read."""

from datetime import datetime
from typing import Any, TextIO

TO_TOP, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

_COLUMNS = ("actor", "node", "code", "version", "groups/s", "tickets", "")
_JUDGE_COLUMNS = ("judge", "node", "code", "groups/s", "tickets", "")
_TOLD_ELSEWHERE = ("time", "event", "path", "pid", "tickets")


def show(text: str, stream: TextIO) -> None:
    """Print it; on a terminal in place of what was there, without a flicker."""
    if stream.isatty():
        lines = "".join(f"{line}{CLEAR_LINE}\n" for line in text.splitlines())
        stream.write(f"{TO_TOP}{lines}{CLEAR_BELOW}")
    else:
        stream.write(f"{text}\n\n")
    stream.flush()


def status_text(status: dict[str, Any]) -> str:
    """A line a subject, a row an actor, the newest events last."""
    if "step" not in status:
        return f"starting: {status.get('phase') or 'it has not begun to train'}"
    lines = [f"at work     {status['phase']}"] if status.get("phase") else []
    lines += [f"step        {status['step']} of {status['num_steps']}, {_eta(status['eta_seconds'])}"]
    lines.append(f"learned     {status['groups_learned']} groups, policy version {status['policy_version']}")
    if status["last_step"]:
        lines += _last_step(status["last_step"])
    lines.append(f"buffer      {status['groups_buffered']} of {status['buffer_capacity']} groups")
    lines.append(f"checkpoint  {checkpoint_text(status['last_checkpoint'])}")
    lines += ["", *_actors(status)]
    if status.get("judges"):
        lines += ["", *_judges(status["judges"])]
    if status["recent_events"]:
        lines += ["", "recent events", *(_event(event) for event in status["recent_events"])]
    return "\n".join(lines)


def _last_step(last: dict[str, Any]) -> list[str]:
    rate = last["num_groups"] / last["step_seconds"]
    waits = last["wait_seconds"] / last["step_seconds"]
    return [
        f"last step   {last['step_seconds']:.1f} s, {rate:.1f} groups/s, learner waited {waits:.0%}",
        f"            reward {last['reward_mean']:.4f}, cross-entropy {last['ce_prior']:.3f}",
        f"staleness   {last['staleness_mean']:.2f} versions on average, {last['staleness_max']} at most",
    ]


def _actors(status: dict[str, Any]) -> list[str]:
    actors = status["actors"]
    ready = sum(bool(state["node"]) for state in actors.values())
    counts = f"{ready} ready, {status['actors_wanted']} wanted, {status['actor_restarts']} restarts"
    return [f"actors      {counts}", *_table([_COLUMNS, *(_row(name, state) for name, state in actors.items())])]


def _judges(judges: dict[str, Any]) -> list[str]:
    states = judges["states"]
    ready = sum(bool(state["node"]) for state in states.values())
    counts = f"{ready} ready, {judges['wanted']} wanted, {judges['restarts']} restarts"
    rows = [_JUDGE_COLUMNS, *(_judge_row(name, state) for name, state in states.items())]
    return [f"judges      {counts}; {judges['tickets_waiting']} tickets wait for one", *_table(rows)]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"  {line.rstrip()}" for line in lines]


def _row(name: str, state: dict[str, Any]) -> tuple[str, ...]:
    version = state["policy_version"]
    name, node, code, *others = _judge_row(name, state)
    return (name, node, code, "-" if version is None else str(version), *others)


def _judge_row(name: str, state: dict[str, Any]) -> tuple[str, ...]:
    rate = state["groups_per_second"]
    note = "leaving" if state["is_leaving"] else "" if state["node"] else "not ready"
    return (
        name,
        state["node"] or "-",
        state["code"] or "-",
        "-" if rate is None else f"{rate:.1f}",
        str(state["calls"]),
        note,
    )


def _eta(seconds: float | None) -> str:
    return "time left unknown" if seconds is None else f"{time_text(seconds)} left"


def checkpoint_text(last: dict[str, Any] | None) -> str:
    """Of what `last_checkpoint` gives."""
    return "none yet" if last is None else f"step {last['step']}, {time_text(last['seconds_ago'])} ago"


def time_text(seconds: float) -> str:
    """In seconds, minutes, hours or days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"


def _event(event: dict[str, Any]) -> str:
    """Its time and kind, and what is short of its facts."""
    clock = f"{datetime.fromisoformat(event['time']).astimezone():%H:%M:%S}"
    facts = [f"{key} {value}" for key, value in event.items() if key not in _TOLD_ELSEWHERE and value != ""]
    return f"  {clock}  {event['event'].replace('_', ' ')}{'  ' if facts else ''}{', '.join(facts)}"[:160]
