"""A learner rank with a real model and a real process group of one, in the test's own process.

Letters: B groups, G samples a group, T image tokens, V codebook entries.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist

from common.clock import StageClock
from common.config.recipe import Recipe
from common.errors import ClusterError
from common.models.loading import load_policy
from common.schema import GroupBatch, to_table
from common.types import WeightSnapshot
from common.weights.snapshot import take_snapshot, tensors_of
from learner.learner_actor import LearnerActor, RankDescription, RankReport, require_own_gpus
from learner.peers import PeerLostError
from learner.shares import Piece
from learner.train_step import Trainer
from tests.fakes import FakeRay

B, G, T, V = 4, 4, 64, 20
Arrays = Mapping[str, np.ndarray]


def groups(seed: int) -> GroupBatch:
    draws = np.random.default_rng(seed)

    def tokens(*shape: int) -> np.ndarray:
        return draws.integers(V, size=shape, dtype=np.int32)

    return GroupBatch(
        sample_index_B=np.arange(B),
        image_id_B=tuple("abcd"),
        policy_version=0,
        codebook_size=V,
        context_tokens_BT=tokens(B, T - 1),
        target_tokens_BT=tokens(B, T),
        sampled_tokens_BGT=tokens(B, G, T),
        behaviour_logprobs_BGT=np.full((B, G, T), -np.log(V), dtype=np.float32),
        reward_terms={name: draws.random((B, G), dtype=np.float32) for name in ("mse", "lpips")},
        condition={"label": np.arange(B)},
    )


@pytest.fixture
def recipe(small_run: Callable[..., Recipe]) -> Recipe:
    return small_run("run")


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


@pytest.fixture
def rank(recipe: Recipe, ray: FakeRay) -> Iterator[LearnerActor]:
    """The only one of its group."""
    rank = LearnerActor(recipe, calls=ray)
    meet(rank)
    yield rank
    rank.leave()


def meet(rank: LearnerActor) -> None:
    rank.join(0, 1, *rank.open_store(1))


def learn(rank: LearnerActor, ray: FakeRay, seed: int) -> RankReport:
    return rank.train([Piece(ray.put(to_table(groups(seed))), 0, B)], B)


def published(rank: LearnerActor, version: int = 0) -> WeightSnapshot:
    rank.copy_weights(version)
    return deepcopy(rank.snapshot(version)[1])  # as Ray does


def weights(rank: LearnerActor) -> Arrays:
    return arrays(published(rank))


def arrays(snapshot: WeightSnapshot) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors_of(snapshot).items()}


def is_equal(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_rank_says_where_it_is(rank: LearnerActor) -> None:
    assert rank.describe() == RankDescription("127.0.0.1", os.getpid())
    host, port = rank.open_store(1)
    assert host == "127.0.0.1"
    assert port > 0


def test_a_step_of_a_group_of_one_is_that_of_the_trainer_bit_for_bit(
    rank: LearnerActor, ray: FakeRay, recipe: Recipe
) -> None:
    alone = Trainer(load_policy(recipe, torch.device("cpu")), recipe, torch.device("cpu"))
    first = weights(rank)
    report = learn(rank, ray, 1)
    assert (report.sums, report.grad_norm) == alone.train(groups(1), StageClock())
    assert is_equal(weights(rank), arrays(take_snapshot(alone.model, 0)))
    assert not is_equal(weights(rank), first)
    assert rank.step() == 1
    assert set(report.stage_seconds) == {"fetch", "forward_backward", "optimizer"}
    assert (report.resident_bytes > 10 << 20, report.gpu_peak_bytes) == (True, 0)


def test_a_rank_learns_from_its_pieces_alone_and_in_their_order(rank: LearnerActor, ray: FakeRay) -> None:
    one, other = (ray.put(to_table(groups(seed))) for seed in (1, 2))
    report = rank.train([Piece(one, 3, 1), Piece(other, 0, 2)], 3)
    learned = np.concatenate([groups(1).reward_terms["mse"][3:], groups(2).reward_terms["mse"][:2]])
    assert report.sums.num_groups == 3
    assert report.sums.reward_terms["mse"] == pytest.approx(learned.mean(axis=1).sum(), rel=1e-6)


def test_the_loss_is_per_group_of_the_whole_step(rank: LearnerActor, ray: FakeRay, recipe: Recipe) -> None:
    table = ray.put(to_table(groups(1)))
    half = rank.train([Piece(table, 0, 2)], num_groups=4)
    other = LearnerActor(recipe, calls=ray)
    meet(other)
    whole = other.train([Piece(table, 0, 2)], num_groups=2)
    assert half.grad_norm == pytest.approx(whole.grad_norm / 2, rel=1e-5)


def test_a_snapshot_has_its_version_and_stays_as_it_is(rank: LearnerActor, ray: FakeRay) -> None:
    first = weights(rank)
    rank.copy_weights(2)  # of a publication that was given up
    rank.copy_weights(3)
    learn(rank, ray, 1)  # the next step, before anybody asks for what was copied
    num_bytes, snapshot = rank.snapshot(3)
    assert (snapshot.version, snapshot.num_bytes) == (3, num_bytes)
    assert is_equal(arrays(snapshot), first)
    assert not is_equal(weights(rank), first)


def test_a_rank_that_takes_up_a_checkpoint_goes_on_as_the_one_that_left_it(
    rank: LearnerActor, ray: FakeRay, recipe: Recipe
) -> None:
    learn(rank, ray, 1)
    other = LearnerActor(recipe, calls=ray)
    other.resume(rank.step(), deepcopy(rank.optimizer_arrays()), published(rank, 1))
    assert other.step() == 1
    learn(rank, ray, 2)
    meet(other)
    learn(other, ray, 2)
    assert other.step() == 2
    assert is_equal(weights(other), weights(rank))
    assert is_equal(other.optimizer_arrays(), deepcopy(rank.optimizer_arrays()))


def test_step_and_optimizer_of_another_rank_leave_the_weights_alone(
    rank: LearnerActor, ray: FakeRay, recipe: Recipe
) -> None:
    other = LearnerActor(recipe, calls=ray)
    first = weights(other)
    learn(rank, ray, 1)
    other.resume(rank.step(), deepcopy(rank.optimizer_arrays()))
    assert is_equal(other.optimizer_arrays(), deepcopy(rank.optimizer_arrays()))
    assert is_equal(weights(other), first)


def test_a_group_takes_the_place_of_a_former_one_and_ends_when_its_rank_leaves(
    rank: LearnerActor, ray: FakeRay
) -> None:
    learn(rank, ray, 1)
    meet(rank)
    assert dist.get_world_size() == 1
    assert learn(rank, ray, 2).sums.num_groups == B
    assert rank.step() == 2
    rank.leave()
    assert not dist.is_initialized()
    with pytest.raises(AssertionError, match="join first"):
        learn(rank, ray, 3)
    rank.leave()  # once more does nothing


def test_a_rank_that_waits_in_vain_for_another_says_that_it_lost_a_peer(rank: LearnerActor, monkeypatch) -> None:
    address = rank.open_store(2)
    monkeypatch.setattr("learner.learner_actor.MEETING_TIMEOUT", timedelta(milliseconds=50))
    with pytest.raises(PeerLostError, match="timeout"):
        rank.join(0, 2, *address)
    meet(rank)
    assert dist.get_world_size() == 1


def test_two_ranks_on_one_gpu_are_refused_by_their_numbers() -> None:
    require_own_gpus(["", "", ""])  # CPUs
    require_own_gpus(["GPU-a", "GPU-b"])
    with pytest.raises(ClusterError) as caught:
        require_own_gpus(["GPU-a", "GPU-b", "GPU-a"])
    assert str(caught.value) == (
        "ranks 0 and 2 share the GPU GPU-a, on which NCCL hangs: reserve a whole one for each "
        "(learner.num_gpus=1), or lower learner.num_ranks"
    )
