"""Random numbers are a function of what they are for."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from common.seeding import derive_seed, generator

seeds = st.integers(0, 2**70)
paths = st.lists(st.integers(0, 2**40), max_size=3)


@given(seed=seeds, path=paths)
def test_a_seed_is_a_function_of_its_arguments_and_fits_63_bits(seed: int, path: list[int]) -> None:
    derived = derive_seed(seed, "noise", *path)
    assert derived == derive_seed(seed, "noise", *path)
    assert 0 <= derived < 2**63


def test_known_seeds_never_change() -> None:
    """A run of last year must draw the same numbers when it is repeated."""
    assert derive_seed(0, "context noise", 0) == 2063609390164515898
    assert derive_seed(7, "group samples", 123) == 6233075673545249313


def test_seed_purpose_and_place_each_matter() -> None:
    near = {
        derive_seed(0, "noise", 1, 2),
        derive_seed(1, "noise", 1, 2),
        derive_seed(0, "samples", 1, 2),
        derive_seed(0, "noise", 2, 1),
        derive_seed(0, "noise", 1),
        derive_seed(0, "noise"),
    }
    assert len(near) == 6


def test_the_seeds_of_neighbours_are_spread() -> None:
    derived = [derive_seed(0, "noise", index) for index in range(1000)]
    assert len(set(derived)) == 1000
    ones = sum(seed.bit_count() for seed in derived) / 1000
    assert 31 < ones < 32  # of 63 bits


def test_generators_of_one_place_draw_the_same_numbers_and_those_of_two_do_not() -> None:
    one, same, other = (torch.rand(8, generator=generator(3, "noise", place)) for place in (5, 5, 6))
    assert one.equal(same)
    assert not one.equal(other)
    assert generator(3, "noise").device == torch.device("cpu")


def test_drawing_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    torch.rand(8, generator=generator(0, "noise"))
    assert torch.get_rng_state().equal(state)
