"""A learner rank: the Ray shell around the trainer, under PyTorch DDP."""

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import ray
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from common.clock import StageClock
from common.config.recipe import Recipe
from common.device import prepare_device
from common.models.loading import load_policy
from common.schema import concatenate, from_table
from common.types import WeightSnapshot
from common.weights.snapshot import take_snapshot
from learner.optimizer import load_optimizer_arrays, optimizer_arrays
from learner.shares import Piece
from learner.train_step import StepSums, Trainer

COLLECTIVE_TIMEOUT = timedelta(minutes=10)


class LearnerActor:
    def __init__(self, recipe: Recipe, checkpoint: str | None):
        """`checkpoint` is a run's checkpoint folder to take the weights from; None takes the recipe's."""
        self._device = prepare_device(recipe.compute)
        policy = load_policy(recipe, self._device, checkpoint)
        self._trainer = Trainer(policy, recipe, self._device)
        self._ddp: DistributedDataParallel | None = None
        self._store: dist.TCPStore | None = None
        self._rank, self._num_ranks = 0, 1

    def node(self) -> str:
        return ray.util.get_node_ip_address()

    def open_store(self, num_ranks: int) -> tuple[str, int]:
        """Rank 0: serve the rendezvous of the process group; its host and port."""
        host = ray.util.get_node_ip_address()
        self._store = dist.TCPStore(
            host, 0, num_ranks, is_master=True, timeout=COLLECTIVE_TIMEOUT, wait_for_workers=False
        )
        return host, self._store.port

    def join(self, rank: int, num_ranks: int, host: str, port: int) -> None:
        """Form the process group with the other ranks; DDP sends rank 0's weights to all."""
        store = self._store or dist.TCPStore(host, port, num_ranks, timeout=COLLECTIVE_TIMEOUT)
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=num_ranks, timeout=COLLECTIVE_TIMEOUT)
        self._rank, self._num_ranks = rank, num_ranks
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # PyTorch 2.14 renames broadcast_buffers; 2.9 knows no other
            self._ddp = DistributedDataParallel(self._trainer.policy, broadcast_buffers=False)

    def train(self, pieces: Sequence[Piece], num_groups: int) -> tuple[StepSums, float, dict[str, float]]:
        """One optimizer step on this rank's share of `num_groups` groups: sums, gradient norm, seconds."""
        assert self._ddp is not None, "join first"
        clock = StageClock(self._device)
        with clock("fetch"):
            tables = ray.get([piece.groups for piece in pieces])
            groups = concatenate(
                [
                    from_table(table.slice(piece.start, piece.count))
                    for table, piece in zip(tables, pieces, strict=True)
                ]
            )
        sums, norm = self._trainer.train(
            groups,
            clock,
            forward=self._ddp,
            num_groups=num_groups,
            num_ranks=self._num_ranks,
            no_sync=self._ddp.no_sync,
            rank=self._rank,
        )
        return sums, norm, dict(clock.seconds)

    def snapshot(self, version: int) -> WeightSnapshot:
        """The weights, returned and not put: the driver owns them, and they outlive this rank."""
        return take_snapshot(self._trainer.policy, version, self._trainer.step)

    def optimizer_arrays(self) -> dict[str, np.ndarray]:
        return optimizer_arrays(self._trainer.optimizer, self._trainer.policy)

    def resume(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Take up the optimizer state and the step of a checkpoint."""
        load_optimizer_arrays(self._trainer.optimizer, self._trainer.policy, arrays)
        self._trainer.step = step

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
