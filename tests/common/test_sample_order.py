"""Each epoch visits every image once, in an order of its own."""

from hypothesis import given, settings
from hypothesis import strategies as st

from common.sample_order import SampleOrder


def epoch(order: SampleOrder, number: int, num_images: int) -> list[int]:
    return [order.image_index(index) for index in range(number * num_images, (number + 1) * num_images)]


@given(seed=st.integers(0, 2**64), num_images=st.integers(1, 40), number=st.integers(0, 1000))
@settings(deadline=None)
def test_every_epoch_is_a_permutation_of_the_images(seed: int, num_images: int, number: int) -> None:
    assert sorted(epoch(SampleOrder(seed, num_images), number, num_images)) == list(range(num_images))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch(SampleOrder(0, 50), 0, 50)
    assert epoch(SampleOrder(0, 50), 0, 50) == first
    assert epoch(SampleOrder(0, 50), 1, 50) != first
    assert epoch(SampleOrder(1, 50), 0, 50) != first


def test_indices_may_be_asked_in_any_order() -> None:
    order, forward = SampleOrder(3, 5), SampleOrder(3, 5)
    indices = [17, 0, 23, 4, 17, 11, 2]
    expected = [forward.image_index(index) for index in range(25)]
    assert [order.image_index(index) for index in indices] == [expected[index] for index in indices]
