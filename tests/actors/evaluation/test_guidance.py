"""Guidance scales by hand, and the guided logits. Letters: N pictures, V codebook entries."""

import pytest
import torch

from common.config.sampling import SamplingSection
from common.guidance import guidance_scales, guided


def test_a_constant_scale_is_that_of_every_token() -> None:
    assert guidance_scales(SamplingSection(guidance_scale=2.5), 3) == [2.5, 2.5, 2.5]


def test_a_power_cosine_rises_from_one_towards_the_scale() -> None:
    """Power 2 over 4 tokens: (1 - cos(π t²/16)) / 2 at t = 0, 1, 2, 3."""
    sampling = SamplingSection(guidance_scale=5, guidance_schedule="power_cosine")
    assert guidance_scales(sampling, 4) == pytest.approx([1, 1.0384294, 1.5857864, 3.3901806])
    long = guidance_scales(sampling, 576)
    assert long == sorted(long)
    assert long[-1] == pytest.approx(5, abs=1e-3)


def test_a_larger_power_rises_later_and_a_power_of_one_is_a_plain_cosine() -> None:
    plain = SamplingSection(guidance_scale=3, guidance_schedule="power_cosine", guidance_power=1)
    assert guidance_scales(plain, 4) == pytest.approx([1, 1.2928932, 2, 2.7071068])
    late = SamplingSection(guidance_scale=3, guidance_schedule="power_cosine", guidance_power=3)
    assert all(a > b for a, b in zip(guidance_scales(plain, 4)[1:], guidance_scales(late, 4)[1:], strict=True))


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, None, [4, 4, 4, 4]), (2, None, [1, 1, 4, 4]), (0, 3, [4, 4, 4, 1]), (1, 2, [1, 4, 1, 1])],
)
def test_an_interval_guides_its_tokens_alone(start: int, stop: int | None, expected: list[float]) -> None:
    sampling = SamplingSection(
        guidance_scale=4, guidance_schedule="interval", guidance_start=start, guidance_stop=stop
    )
    assert guidance_scales(sampling, 4) == expected


def test_guided_logits_go_from_without_through_with_and_beyond() -> None:
    with_NV, without_NV = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    assert guided(with_NV, without_NV, 3).tolist() == [[3.0, -2.0]]
    assert guided(with_NV, without_NV, 0).tolist() == [[0.0, 4.0]]


def test_a_scale_of_one_is_the_conditional_to_the_last_bit() -> None:
    with_NV, without_NV = torch.tensor([[0.1]]), torch.tensor([[1e8]])
    assert guided(with_NV, without_NV, 1) is with_NV
    assert not (without_NV + (with_NV - without_NV)).equal(with_NV)
