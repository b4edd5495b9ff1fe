"""A learner rank: the Ray shell around the trainer, under PyTorch DDP."""

import gc
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from queue import SimpleQueue
from typing import ClassVar

import ray
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from common.clock import StageClock
from common.config.recipe import Recipe
from common.errors import ClusterError
from common.log import log_context, set_up_logging
from common.machine import gpu_peak_bytes, gpu_uuid, prepare_device, resident_bytes
from common.models.loading import load_trained
from common.models.lora import frozen_names, trained_tensors
from common.ray_calls_group import RayCalls
from common.schema import by_rollout, from_table
from common.types import TrainingState, WeightSnapshot
from common.weights.snapshot import (
    WeightsBuffer,
    linear_parameters,
    load_snapshot,
    weights_sha256,
)
from learner.checkpoint import training_state
from learner.optimizer import Arrays
from learner.peers import peer_errors
from learner.shares import Piece
from learner.step_sums import StepSums
from learner.train_step import Trainer

log = logging.getLogger("vapi.learner")

MEETING_TIMEOUT = timedelta(seconds=30)  # of ranks that are all up
PUBLISHING = "publishing"  # a rank's concurrency group: its thread hands out weights while the next step runs


def require_own_gpus(uuids: Sequence[str]) -> None:
    """Raise ClusterError where two ranks, here by their GPUs, share one: NCCL would hang. "" is a CPU."""
    for rank, uuid in enumerate(uuids):
        if uuid and uuid in uuids[:rank]:
            raise ClusterError(
                f"ranks {uuids.index(uuid)} and {rank} share the GPU {uuid}, on which NCCL hangs: reserve a whole "
                "one for each (learner.num_gpus=1), or lower learner.num_ranks"
            )


def _added_up(total: Tensor) -> Tensor:
    dist.all_reduce(total)
    return total


@dataclass(frozen=True)
class RankReport:
    """What a rank measured in a step."""

    sums: StepSums
    grad_norm: float
    stage_seconds: dict[str, float]
    resident_bytes: int
    gpu_peak_bytes: int


@dataclass(frozen=True)
class RankDescription:
    """What a rank says of itself when it is ready."""

    node: str
    pid: int
    device: str = "cpu"


class LearnerActor:
    CONCURRENCY_GROUPS: ClassVar = {PUBLISHING: 1}

    def __init__(self, recipe: Recipe, calls: RayCalls | None = None):
        self._ray = calls or RayCalls()
        set_up_logging(recipe.log.format, role="rank")
        self._device = prepare_device(recipe.compute)
        self._recipe = recipe
        self._trainer = Trainer(load_trained(recipe, self._device), recipe, self._device)
        self._ddp: DistributedDataParallel | None = None
        self._store: dist.TCPStore | None = None
        # of each copy of the weights: its version, and what went wrong
        self._copied: SimpleQueue[tuple[int, Exception | None]] = SimpleQueue()
        self._rank, self._num_ranks = 0, 1
        self._timeout = timedelta(seconds=recipe.learner.collective_timeout_seconds)

    def describe(self) -> RankDescription:
        return RankDescription(self._ray.node_address(), os.getpid(), str(self._device))

    def step(self) -> int:
        """Optimizer steps done; answered once what the rank was doing has ended or failed."""
        return self._trainer.step

    def open_store(self, num_ranks: int) -> tuple[str, int]:
        """Rank 0: serve the rendezvous of a process group; its host and port."""
        host = self._ray.node_address()
        self._store = dist.TCPStore(
            host, 0, num_ranks, is_master=True, timeout=MEETING_TIMEOUT, wait_for_workers=False
        )
        return host, self._store.port

    def join(self, rank: int, num_ranks: int, host: str, port: int) -> None:
        """Form a process group with the other ranks, in place of a former one; DDP sends rank 0's weights to all.

        Raises PeerLostError where one of them does not come.
        """
        self.leave()
        with peer_errors():
            if rank != 0:
                self._store = dist.TCPStore(host, port, num_ranks, timeout=MEETING_TIMEOUT)
            assert self._store is not None, "open the store first"
            # meeting in the store first, because forming the group waits as long as its collectives do
            self._store.set(f"present {rank}", gpu_uuid(self._device))
            self._store.wait([f"present {other}" for other in range(num_ranks)], MEETING_TIMEOUT)
            require_own_gpus([self._store.get(f"present {other}").decode() for other in range(num_ranks)])
            self._form(rank, num_ranks, self._store)

    def _form(self, rank: int, num_ranks: int, store: dist.TCPStore) -> None:
        backend = "nccl" if self._device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=num_ranks, timeout=self._timeout)
        self._rank, self._num_ranks = rank, num_ranks
        model = self._trainer.model  # frozen weights are the same on every rank: rank 0 need not send gigabytes
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, frozen_names(model))
        log_context(role=f"rank-{rank}", step=self._trainer.step)
        log.info("one of %d ranks, on %s", num_ranks, self._device)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # PyTorch 2.14 renames broadcast_buffers; 2.9 knows no other
            self._ddp = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def train(self, pieces: Sequence[Piece], num_groups: int) -> RankReport:
        """One optimizer step on this rank's share of `num_groups` groups.

        Raises PeerLostError where a collective failed. The step is then as if it had not been: the last
        collective comes before the update.
        """
        assert self._ddp is not None, "join first"
        clock = StageClock(self._device)
        with clock("fetch"):
            tables = self._ray.get([piece.groups for piece in pieces])
            groups = by_rollout(
                from_table(table.slice(piece.start, piece.count))
                for table, piece in zip(tables, pieces, strict=True)
            )
        with peer_errors():
            sums, norm = self._trainer.train(
                groups,
                clock,
                forward=self._ddp,
                num_groups=num_groups,
                num_ranks=self._num_ranks,
                no_sync=self._ddp.no_sync,
                rank=self._rank,
                over_ranks=_added_up,
            )
        log_context(step=self._trainer.step)
        memory = resident_bytes(), gpu_peak_bytes(self._device)
        return RankReport(sums, norm, dict(clock.seconds), *memory)

    def copy_weights(self, version: int) -> None:
        """Copy the weights as they are between two steps, for `snapshot` to hand out beside the next."""
        failure = None
        try:
            self._weights.fill(trained_tensors(self._trainer.model))
        except Exception as error:
            failure = error
        self._copied.put((version, failure))

    @ray.method(concurrency_group=PUBLISHING)
    def snapshot(self, version: int) -> tuple[int, WeightSnapshot]:
        """Number of bytes, and the weights that `copy_weights` copies, in what actors compute with.

        They are returned and not put: the driver owns them, and they outlive this rank. The next copy may be asked
        for once this one is there.
        """
        copied, failure = self._copied.get()
        while copied != version:  # of a publication that was given up
            copied, failure = self._copied.get()
        if failure is not None:
            raise failure
        weights = self._weights.snapshot(version)
        return weights.num_bytes, weights

    @cached_property
    def _weights(self) -> WeightsBuffer:
        model = self._trainer.model
        narrow = linear_parameters(model) if self._recipe.has_narrow_weights else ()
        return WeightsBuffer(trained_tensors(model), narrow)

    def training_state(self) -> tuple[int, TrainingState]:
        """Step, and what a checkpoint holds: on a CPU no copy, because Ray copies what is returned."""
        return self._trainer.step, training_state(trained_tensors(self._trainer.model), self.optimizer_arrays())

    @ray.method(concurrency_group=PUBLISHING)
    def weights_sha256(self) -> str:
        """Of the weights in full precision; to be asked where no step runs, whatever else the rank is at."""
        return weights_sha256(trained_tensors(self._trainer.model))

    def optimizer_arrays(self) -> Arrays:
        return self._trainer.optimizer_arrays()

    def resume(self, step: int, arrays: Arrays, weights: WeightSnapshot | None = None) -> None:
        """Take up step and optimizer state of a checkpoint with its `weights`, or of another rank."""
        if weights is not None:
            load_snapshot(self._trainer.model, weights)
        self._trainer.load_optimizer_arrays(arrays)
        self._trainer.step = step
        log_context(step=step)

    def leave(self) -> None:
        """Give up the process group, if there is one."""
        self._ddp = None
        gc.collect()  # the hooks of a former DDP on the parameters go with it, and would use its group
        if dist.is_initialized():
            dist.destroy_process_group()
