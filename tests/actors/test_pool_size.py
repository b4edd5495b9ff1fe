"""How many reward actors can be asked for, and how many at a time."""

import pytest

from actors.pool_size import TooManyActorsError, most_actors, next_wave, require_possible, room_for
from common.config.service import ActorsSection


@pytest.mark.parametrize(
    ("needs", "cluster", "room"),
    [
        ({}, {"CPU": 8.0}, 8),
        ({"num_cpus": 0.5}, {"CPU": 8.0, "memory": 2.0**40}, 16),
        ({"num_gpus": 0.5}, {"CPU": 64.0, "GPU": 4.0}, 8),
        ({"num_gpus": 1}, {"CPU": 64.0}, 0),
        ({"num_cpus": 0}, {"CPU": 8.0, "memory": 2.0**30}, 4),
        ({"num_cpus": 0}, {}, 10_000),
        ({}, {"CPU": float("inf"), "memory": 2.0**30}, 4),
    ],
)
def test_a_cluster_holds_what_its_scarcest_resource_allows(needs, cluster, room) -> None:
    assert room_for(ActorsSection(**needs), cluster) == room


def test_a_few_can_be_asked_of_any_cluster_and_many_of_a_large_one() -> None:
    assert most_actors(ActorsSection(), {"CPU": 2.0}) == 16
    assert most_actors(ActorsSection(), {"CPU": 1000.0}) == 4000
    assert most_actors(ActorsSection(), {"CPU": 99999.0}) == 10_000


def test_what_is_far_beyond_the_cluster_is_refused_with_the_number() -> None:
    require_possible(40, ActorsSection(), {"CPU": 10.0})
    with pytest.raises(
        TooManyActorsError, match=r"99999 reward actors are far beyond this cluster, which holds 10"
    ):
        require_possible(99999, ActorsSection(), {"CPU": 10.0})


def test_actors_are_asked_for_in_waves_that_grow_with_those_that_are_ready() -> None:
    assert next_wave(wanted=5, ready=0, loading=0) == 5
    assert next_wave(wanted=1000, ready=0, loading=0) == 32
    assert next_wave(wanted=1000, ready=0, loading=32) == 0
    assert next_wave(wanted=1000, ready=10, loading=22) == 10
    assert next_wave(wanted=1000, ready=100, loading=0) == 100
    assert next_wave(wanted=101, ready=100, loading=0) == 1
    assert next_wave(wanted=5, ready=8, loading=0) == 0
