"""The meter on real and on fake tensors, against numbers worked out by hand."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from deploy.planning.work_meter import WorkMeter

B, H, S, D = 2, 3, 8, 4
PRODUCT = 2 * B * H * S * S * D  # one of attention's two products


def attention_work(*, causal: bool, backend: SDPBackend) -> tuple[int, int]:
    """FLOPs of the forward and of the backward."""
    with FakeTensorMode(), WorkMeter() as meter, sdpa_kernel(backend):
        query, key, value = (torch.zeros(B, H, S, D, requires_grad=True) for _ in range(3))
        with meter("forward"):
            mixed = scaled_dot_product_attention(query, key, value, is_causal=causal)
        with meter("backward"):
            mixed.sum().backward()
    return meter.flops["forward"], meter.flops["backward"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_attention_is_counted_in_full_by_every_kernel(causal: bool, backend: SDPBackend) -> None:
    assert attention_work(causal=causal, backend=backend) == (2 * PRODUCT, 4 * PRODUCT)


def test_a_multiply_add_is_two_and_elementwise_work_is_nothing() -> None:
    linear, conv = nn.Linear(5, 7, bias=False), nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad(), WorkMeter() as meter:
        with meter("linear"):
            torch.relu(linear(torch.zeros(11, 5))).softmax(-1)
        with meter("conv"):
            conv(torch.zeros(1, 3, 6, 6))
    assert meter.flops == {"linear": 2 * 11 * 5 * 7, "conv": 2 * 6 * 6 * 4 * 3 * 9}


def test_a_stage_that_comes_twice_adds_its_flops_and_keeps_its_larger_peak() -> None:
    weights = torch.zeros(10, 10)
    with WorkMeter() as meter:
        for rows in (3, 2):
            with meter("product"):
                torch.zeros(rows, 10) @ weights
    assert meter.flops["product"] == 2 * 5 * 100
    assert meter.peak_bytes["product"] == 2 * 3 * 10 * 4  # input and output


def test_bytes_are_followed_until_nobody_holds_them() -> None:
    before = torch.zeros(1000)
    with WorkMeter() as meter, meter("all"):
        kept = before + 1
        view = kept[:10]
        assert meter.live_bytes == 4000
        scratch = kept * 2
        assert meter.live_bytes == 8000
        del scratch
        assert meter.live_bytes == 4000
        del kept
        assert meter.live_bytes == 4000, "the view holds it"
        del view
        assert meter.live_bytes == 0
    assert meter.peak_bytes["all"] == 8000


def test_what_the_backward_pass_needs_is_alive_until_it_has_run() -> None:
    weight = torch.zeros(100, requires_grad=True)
    with WorkMeter() as meter:
        loss = weight.exp().sum()  # keeps the exponential
        assert meter.live_bytes == 400 + 4
        loss.backward()
        del loss
        assert meter.live_bytes == 400, "the gradient"
