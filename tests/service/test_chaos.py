"""Actors and ranks are killed all the time, at random: the run ends, and its account is whole."""

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from deploy.service.driver import train
from tests.service.reading import events, learned_tickets, lines

pytestmark = [pytest.mark.ray, pytest.mark.chaos]


class Killer(threading.Thread):
    """Kills one of a run's living actors, judges and ranks every few seconds."""

    def __init__(self, run: Path, every_seconds: float, after_steps: int):
        """And only once so many more steps are learned."""
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self._run = run
        self._every_seconds, self._after_steps = every_seconds, after_steps
        self._ended = threading.Event()
        self._choice = random.Random(0)

    def run(self) -> None:
        learned = 0
        while not self._ended.wait(self._every_seconds):
            metrics = self._run / "metrics.jsonl"
            steps = len(lines(metrics)) if metrics.exists() else 0
            if steps < learned + self._after_steps:
                continue
            learned = steps
            kinds = ("actor_joined", "rank_joined", "judge_joined")
            joined = [event for kind in kinds for event in events(self._run, kind)]
            living = sorted({event["pid"] for event in joined if _lives(event["pid"])})
            if living:
                self.killed.append(self._choice.choice(living))
                os.kill(self.killed[-1], signal.SIGKILL)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SPLIT = {"actors.count": 3, "buffer.max_staleness": 2}
JUDGED = SPLIT | {
    "actors.count": 2,
    "reward.classifier": 0.5,
    "reward.actors": {"count": 2, "num_cpus": 0.5, "max_restarts": 1000},
}
COLOCATED = {"placement": "colocated", "actors.count": 1, "buffer.max_staleness": 0}


@pytest.mark.parametrize(
    ("placement", "every_seconds", "after_steps"),
    [(SPLIT, 5, 0), (JUDGED, 2, 2), (COLOCATED, 5, 0)],  # of three kinds some must live at a time
    ids=["split", "judged apart", "colocated"],
)
def test_a_run_whose_processes_are_killed_every_few_seconds_ends_with_a_whole_account(
    placement, every_seconds, after_steps, small_run, no_ray
):
    recipe = small_run(
        "chaos",
        {
            "learner.num_steps": 30,
            "learner.images_per_step": 32,
            "learner.num_ranks": 2,
            "learner.max_restarts": 1000,
            "actors.num_cpus": 0.5,
            "actors.max_restarts": 1000,
            "checkpoint.every": 1,
        }
        | placement,
    )
    folder = Path(recipe.run.dir) / "chaos"
    killer = Killer(folder, every_seconds, after_steps)
    killer.start()
    try:
        outcome = train(recipe)
    finally:
        killer.stop()
    assert outcome.summary["status"] == "succeeded"
    assert len(killer.killed) > 5
    lost = {kind: len(events(folder, f"{kind}_lost")) for kind in ("actor", "rank", "judge")}
    assert lost["actor"] + lost["rank"] + lost["judge"] > 3
    assert bool(lost["judge"]) == (placement is JUDGED)
    assert learned_tickets(folder) == list(range(30 * recipe.tickets_per_step))
    steps = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert max(line["staleness_max"] for line in steps) <= placement["buffer.max_staleness"]
