"""What a step publishes and a checkpoint holds: the whole policy, or adapters beside it (learner.lora).

Both at once in one process, on the CPU and without Ray: a version is copied out of the learner and into an actor.
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import nn

from common.config.algorithm import LearnerSection
from common.config.lora import LoraSection
from common.models.adapter_files import AdaptersOf, Base
from common.models.families import build_policy
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.models.lora import add_adapters, layers_to_adapt, trained_tensors
from common.weights.snapshot import WeightsBuffer, linear_parameters, load_snapshot, make_bfloat16
from learner.checkpoint import CheckpointState, training_state, write_checkpoint
from learner.optimizer import build_optimizer, optimizer_arrays

STATE = CheckpointState(1, {}, groups_learned=0, images_skipped=0, recipe={})
MEGA = 1e6


@dataclass(frozen=True)
class Side:
    """One of the two: the policy that learns, and an actor's."""

    learner: nn.Module
    actor: nn.Module
    adapters: AdaptersOf | None

    @classmethod
    def of(cls, spec: LlamaGenPolicySpec, section: LoraSection | None) -> "Side":
        learner, actor = (build_policy(spec, codebook_size=16384, grid_size=24) for _ in range(2))
        make_bfloat16(actor, linear_parameters(actor))
        if section is None:
            return cls(learner, actor, None)
        make_bfloat16(learner, linear_parameters(learner))
        for policy in (learner, actor):
            add_adapters(policy, section, layers_to_adapt(policy, section))
        make_bfloat16(actor, linear_parameters(actor))
        return cls(learner, actor, AdaptersOf(section, Base("", "")))

    def measured(self, rounds: int) -> Mapping[str, float]:
        trained = trained_tensors(self.learner)
        buffer = WeightsBuffer(trained, linear_parameters(self.learner))
        seconds = []
        for version in range(rounds):
            start = perf_counter()
            buffer.fill(trained)
            load_snapshot(self.actor, buffer.snapshot(version))
            seconds.append(perf_counter() - start)
        weights = sum(parameter.nbytes for parameter in self.learner.parameters())
        training = [parameter for parameter in self.learner.parameters() if parameter.requires_grad]
        return {
            "published, MB a step": buffer.snapshot(0).num_bytes / MEGA,
            "copied out and in, ms": 1e3 * median(seconds[1:]),
            "checkpoint, MB": self._checkpoint_bytes(training) / MEGA,
            "weights, gradients, moments, MB": (weights + 3 * 4 * sum(p.numel() for p in training)) / MEGA,
        }

    def _checkpoint_bytes(self, training: list[nn.Parameter]) -> int:
        optimizer = build_optimizer(self.learner, LearnerSection(num_steps=1))
        for parameter in training:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = training_state(trained_tensors(self.learner), optimizer_arrays(optimizer, self.learner))
        with TemporaryDirectory() as folder:
            path = write_checkpoint(Path(folder), state, STATE, self.adapters)
            return sum(file.stat().st_size for file in path.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="B", choices=("B", "L", "XL", "XXL"), help="of LlamaGen")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7, help="the first is left out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = LlamaGenPolicySpec(size=options.size, checkpoint="")
    found = {
        name: Side.of(spec, section).measured(options.rounds)
        for name, section in (("whole policy", None), ("adapters", LoraSection(rank=options.rank)))
    }
    whole, adapters = found["whole policy"], found["adapters"]
    print(f"LlamaGen-{options.size}, adapters of rank {options.rank} at every layer of the blocks")
    print(f"{'':34}{'whole policy':>14}{'adapters':>12}{'ratio':>9}")
    for name in whole:
        print(f"{name:34}{whole[name]:14.2f}{adapters[name]:12.2f}{whole[name] / adapters[name]:9.1f}")
    print(json.dumps({"size": options.size, "rank": options.rank, "load": os.getloadavg()} | found))


if __name__ == "__main__":
    main()
