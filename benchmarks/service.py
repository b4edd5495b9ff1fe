"""Groups per second of the service and of the same algorithm in one process, in alternating runs.

The service has one reward actor and one learner rank and may be two versions stale, so that the two overlap; every
process computes with one thread. Each run is a separate command, measured from its run folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {"service": "train", "local": "local"}
ACTOR_STAGES = ("transfer", "read", "encode", "policy", "sample", "decode", "perceptual")
LEARNER_STAGES = ("fetch", "forward_backward", "optimizer")
MAX_STALENESS = 2
TAIL = MAX_STALENESS + 1  # last steps: no more tickets are handed out, and the buffer only drains
OVERRIDES = (
    "resume=never",
    "actors.count=1",
    "learner.num_ranks=1",
    "compute.num_threads=1",
    f"buffer.max_staleness={MAX_STALENESS}",
    "evaluation.enabled=false",
    "checkpoint.every=1000000000",  # the one at the end lies outside every step
    "metrics.port=0",
)

Line = dict[str, Any]  # of metrics.jsonl


@dataclass(frozen=True)
class Measured:
    lines: list[Line]  # of the steps between warm-up and tail
    groups_from_before: int  # net decrease of the buffer: groups learned but made before these steps

    @property
    def groups_per_second(self) -> float:
        learned = sum(line["num_groups"] for line in self.lines)
        return (learned - self.groups_from_before) / sum(line["step_seconds"] for line in self.lines)


def run(kind: str, folder: Path, options: argparse.Namespace) -> Measured:
    """Run the command to its end and read its metrics."""
    own = (f"run.dir={folder}", f"run.name={kind}", f"learner.num_steps={options.steps}")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}  # start its own Ray
    done = subprocess.run(
        [sys.executable, "-m", "deploy", COMMANDS[kind], options.recipe, *OVERRIDES, *own, *options.overrides],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{kind} ended with status {done.returncode}")
    lines = [json.loads(line) for line in (folder / kind / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == options.steps
    end = options.steps - TAIL
    before, after = (line.get("groups_buffered", 0) for line in (lines[options.warm_up - 1], lines[end - 1]))
    return Measured(lines[options.warm_up : end], max(0, before - after))


def seconds_a_step(lines: list[Line]) -> dict[str, dict[str, float]]:
    """Seconds of a step of the service by process and stage; each process's seconds add up to the step.

    The actors' seconds are those of the tickets that the step learned from, divided by the number of actors.
    """
    step = fmean(line["step_seconds"] for line in lines)
    actor = {
        s: fmean(line["actor_stage_seconds"].get(s, 0.0) / line["num_actors"] for line in lines)
        for s in ACTOR_STAGES
    }
    learner = {s: fmean(line["stage_seconds"][s] for line in lines) for s in LEARNER_STAGES}
    learner["wait"] = fmean(line["wait_seconds"] for line in lines)
    return {
        "actor": actor | {"rest": step - sum(actor.values())},
        "learner": learner | {"rest": step - sum(learner.values())},
    }


def main() -> None:
    options = _options()
    load_average = os.getloadavg()[0]
    runs: dict[str, list[Measured]] = {kind: [] for kind in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="vapi-benchmark-") as temporary:
        for repeat in range(options.repeats):
            for kind, of_kind in runs.items():
                of_kind.append(run(kind, Path(temporary, str(repeat)), options))
                print(
                    f"{kind} {repeat + 1}/{options.repeats}: {of_kind[-1].groups_per_second:.2f} groups/s",
                    flush=True,
                )

    rates = {kind: [measured.groups_per_second for measured in of_kind] for kind, of_kind in runs.items()}
    ratio = median(rates["service"]) / median(rates["local"])
    print(f"\nsteps {options.warm_up + 1} to {options.steps - TAIL} of {options.steps}, without warm-up and tail")
    for kind in COMMANDS:
        print(f"{kind:<8} {median(rates[kind]):8.2f} groups/s")
    print(f"ratio    {ratio:8.2f}")

    pooled = [line for measured in runs["service"] for line in measured.lines]
    step, stages = fmean(line["step_seconds"] for line in pooled), seconds_a_step(pooled)
    busy = [sum(stages["actor"][s] for s in ACTOR_STAGES), sum(stages["learner"][s] for s in LEARNER_STAGES)]
    bound = (busy[0] * pooled[-1]["num_actors"] + busy[1]) / max(busy)
    print(f"bound    {bound:8.2f} (an actor is busy {busy[0]:.3f} s a step, the learner {busy[1]:.3f} s)\n")
    if ratio > bound:
        print("The ratio is above the bound: something else took turns with these runs. Measure again.\n")
    print(f"a step of the service: {step:.3f} s\n{'process':<10}{'stage':<18}{'seconds':>8}{'share':>7}")
    for process, of_process in stages.items():
        for stage, seconds in of_process.items():
            print(f"{process:<10}{stage:<18}{seconds:>8.3f}{seconds / step:>7.0%}")
    result = {
        "benchmark": "service", **vars(options), "ratio": ratio, "bound": bound,
        "groups_per_second": rates, "service_step_seconds": step, "service_stage_seconds": stages,
        "cores": os.cpu_count(), "load_average": load_average,
    }  # fmt: skip
    print(f"\n{json.dumps(result)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="more recipe keys, for both")
    parser.add_argument("--recipe", default="deploy/recipes/mnist.yaml", help="default deploy/recipes/mnist.yaml")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each, taking turns (default 2)")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of a run (default 20)")
    parser.add_argument("--warm-up", type=int, default=4, help="first steps of a run left out (default 4)")
    options = parser.parse_args()
    if not 1 <= options.warm_up < options.steps - TAIL:
        parser.error(
            f"--warm-up is {options.warm_up} and --steps {options.steps}: the warm-up needs a step, and at least "
            f"{options.warm_up + TAIL + 1} steps leave one to measure between it and the last {TAIL}"
        )
    return options


if __name__ == "__main__":
    main()
