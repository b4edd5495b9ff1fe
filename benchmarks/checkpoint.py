"""Seconds that a checkpoint holds up the driver's loop and the learner's next step, and until it is on disk.

Former: the driver gets weights and moments, copies and writes them with the safetensors package, then reads them
again for their digests, and only then goes on. Now: the learner answers with its own memory, and a thread of the
driver writes and hashes in one pass.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import ray
import torch
from safetensors.numpy import save_file

from benchmarks.weights import MEGA, model_of
from common.config.algorithm import LearnerSection
from learner.checkpoint import CheckpointState, training_state, write_checkpoint
from learner.optimizer import build_optimizer, optimizer_arrays

STATE = CheckpointState(1, {}, groups_learned=0, images_skipped=0, recipe={})


class Learner:
    """A model that has done an optimizer step."""

    def __init__(self, num_bytes: int):
        torch.set_num_threads(1)
        self._model = model_of(num_bytes)
        self._optimizer = build_optimizer(self._model, LearnerSection(num_steps=1))
        for parameter in self._model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self._optimizer.step()

    def former_weights(self) -> dict[str, np.ndarray]:
        return {name: np.array(tensor.numpy()) for name, tensor in self._model.state_dict().items()}

    def former_optimizer(self) -> dict[str, np.ndarray]:
        return {key: np.array(value) for key, value in optimizer_arrays(self._optimizer, self._model).items()}

    def training_state(self) -> tuple[int, Any]:
        return 1, training_state(self._model.state_dict(), optimizer_arrays(self._optimizer, self._model))

    def step(self) -> int:
        return 1


def former(learner: Any, folder: Path) -> dict[str, float]:
    start = perf_counter()
    weights, optimizer = ray.get(learner.former_weights.remote()), ray.get(learner.former_optimizer.remote())
    for name, arrays in (("policy", weights), ("optimizer", optimizer)):
        path = folder / f"{name}.safetensors"
        save_file({key: np.array(array) for key, array in arrays.items()}, path)
        with path.open("rb+") as file:
            digest = sha256()
            while block := file.read(1 << 22):
                digest.update(block)
            os.fsync(file.fileno())
    seconds = perf_counter() - start
    return {"driver": seconds, "next step": seconds, "on disk": seconds}


def now(learner: Any, folder: Path, thread: ThreadPoolExecutor) -> dict[str, float]:
    start = last = perf_counter()
    told, value = learner.training_state.options(num_returns=2).remote()
    step = learner.step.remote()
    longest = next_step = 0.0
    writing = None
    while True:
        done, _ = ray.wait([told, step], num_returns=2, timeout=0.01)
        clock = perf_counter()
        longest, last = max(longest, clock - last), clock
        if step in done and not next_step:
            next_step = clock - start
        if told in done and writing is None:
            writing = thread.submit(lambda: write_checkpoint(folder, ray.get(value), STATE))
        if writing is not None and writing.done() and next_step:
            writing.result()
            return {"driver": longest, "next step": next_step, "on disk": clock - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=192, help="of weights; the moments are twice as much")
    parser.add_argument("--rounds", type=int, default=5, help="the first is left out")
    options = parser.parse_args()
    num_bytes = options.megabytes * MEGA
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(address="local", num_cpus=2, object_store_memory=8 * num_bytes + 100 * MEGA, include_dashboard=False)
    remote: Any = ray.remote(Learner)
    learner = remote.remote(num_bytes)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        for _ in range(options.rounds):
            for form, found in (
                ("former", former(learner, Path(folder))),
                ("now", now(learner, Path(folder), thread)),
            ):
                for name, value in found.items():
                    seconds.setdefault(f"{name}, {form}", []).append(value)
    ray.shutdown()
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    print(f"{options.megabytes} MB of weights and their moments, medians of {options.rounds - 1} rounds, seconds")
    print("held up:     driver  next step   on disk")
    for form in ("former", "now"):
        driver, step, disk = (medians[f"{name}, {form}"] for name in ("driver", "next step", "on disk"))
        print(f"{form:10} {driver:8.3f} {step:10.3f} {disk:9.3f}")
    print(json.dumps({"megabytes": options.megabytes, "load": os.getloadavg()} | medians))


if __name__ == "__main__":
    main()
