"""Bytes per second of a policy version on its way: out of the learner, and into an actor; against a plain copy.

Former: a copy of each tensor into fresh memory, and another at the actor, while the driver waits. Now: one kept
buffer, one copy on each side, and a driver that polls. All through Ray's object store, on this machine's CPU.
"""

import argparse
import json
import os
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import ray
import torch
from torch import nn

from actors.incoming_weights import IncomingWeights
from common.types import WeightSnapshot
from common.weights.snapshot import WeightsBuffer

WIDTH = 1024
MEGA = 1 << 20


def model_of(num_bytes: int) -> nn.Module:
    """Square matrices, as a transformer's are."""
    num_layers = max(1, num_bytes // (4 * WIDTH * WIDTH))
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(num_layers)))


class Learner:
    def __init__(self, num_bytes: int):
        torch.set_num_threads(1)
        self._model = model_of(num_bytes)
        self._buffer = WeightsBuffer(self._model.state_dict())

    def former(self) -> dict[str, np.ndarray]:
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self._model.state_dict().items()}

    def copy_weights(self) -> None:
        self._buffer.fill(self._model.state_dict())

    def snapshot(self, version: int) -> tuple[int, WeightSnapshot]:
        snapshot = self._buffer.snapshot(version)
        return snapshot.num_bytes, snapshot


class Actor:
    def __init__(self, num_bytes: int):
        torch.set_num_threads(1)
        self._model = model_of(num_bytes)
        self._incoming = IncomingWeights(lambda _, snapshot: ray.get(snapshot[0]), torch.device("cpu"))

    def former(self, snapshot: list[Any]) -> float:
        start = perf_counter()
        arrays = ray.get(snapshot[0])
        with torch.no_grad():
            for name, parameter in self._model.state_dict().items():
                parameter.copy_(torch.from_numpy(np.array(arrays[name])))
        return perf_counter() - start

    def load(self, version: int, snapshot: list[Any]) -> float:
        start = perf_counter()
        self._incoming.load_into(self._model, version, snapshot)
        return perf_counter() - start


def _started(actor_class: type, num_bytes: int) -> Any:
    remote: Any = ray.remote(actor_class)
    return remote.remote(num_bytes)


def memcpy_seconds(num_bytes: int) -> float:
    """Of memory that both sides have touched before."""
    source, target = np.ones(num_bytes, np.uint8), np.ones(num_bytes, np.uint8)
    start = perf_counter()
    np.copyto(target, source)
    return perf_counter() - start


def publish_former(learner: Any) -> tuple[Any, float, float]:
    """Reference, seconds, and how long the driver's loop stood still."""
    start = perf_counter()
    reference = learner.former.remote()
    ray.get(reference)
    seconds = perf_counter() - start
    return reference, seconds, seconds


def publish_now(learner: Any, version: int) -> tuple[Any, float, float, float]:
    """Also the seconds until the next step may begin."""
    start = last = perf_counter()
    copied = learner.copy_weights.remote()
    told, weights = learner.snapshot.options(num_returns=2).remote(version)
    longest = copy = 0.0
    while True:
        done, _ = ray.wait([told] if copy else [told, copied], timeout=0.01)
        now = perf_counter()
        longest, last = max(longest, now - last), now
        if copied in done:
            copy = now - start
        if told in done:
            assert ray.get(told) > 0
            return weights, now - start, longest, copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7, help="the first is left out")
    options = parser.parse_args()
    num_bytes = options.megabytes * MEGA
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(address="local", num_cpus=2, object_store_memory=4 * num_bytes + 100 * MEGA, include_dashboard=False)
    learner, actor = _started(Learner, num_bytes), _started(Actor, num_bytes)
    seconds: dict[str, list[float]] = {}
    for version in range(options.rounds):
        former, publish, still = publish_former(learner)
        pull = ray.get(actor.former.remote([former]))
        del former
        now, publish_flat, still_now, copy = publish_now(learner, version)
        pull_flat = ray.get(actor.load.remote(version, [now]))
        del now
        found = {
            "memcpy": memcpy_seconds(num_bytes),
            "publish, former": publish,
            "publish": publish_flat,
            "of it the copy out": copy,
            "of it into the store": publish_flat - copy,
            "pull, former": pull,
            "pull": pull_flat,
            "driver stands still, former": still,
            "driver stands still": still_now,
        }
        for name, value in found.items():
            seconds.setdefault(name, []).append(value)
    ray.shutdown()
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    print(f"{options.megabytes} MB, medians of {options.rounds - 1} rounds")
    for name, value in medians.items():
        rate = num_bytes / value / 1e9
        share = medians["memcpy"] / value
        tail = "" if "driver" in name else f"{rate:7.2f} GB/s  {share:5.0%} of memcpy"
        print(f"{name:28} {value:7.3f} s  {tail}")
    print(json.dumps({"megabytes": options.megabytes, "load": os.getloadavg()} | medians))


if __name__ == "__main__":
    main()
