"""The instrument itself: what CUDA refuses and counts, and numbers of a CPU."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.fake_cuda.counts import total_in
from tests.fake_cuda.gpu import fake_cuda

MIXED = "Expected all tensors to be on the same device"
HERE = "tests/test_fake_cuda.py"


def test_a_process_sees_a_gpu_until_the_end_of_the_block() -> None:
    with fake_cuda():
        assert torch.cuda.is_available()
        assert torch.zeros(2, device="cuda").device == torch.device("cuda", 0)
        assert torch.ones(2).cuda().is_cuda
    assert not torch.cuda.is_available()
    assert not torch.ones(2).is_cuda


def test_a_cpu_tensor_beside_one_of_the_gpu_is_refused_unless_it_is_a_number_or_an_index() -> None:
    with fake_cuda() as counts:
        x_N = torch.arange(4.0, device="cuda")
        for mix in (
            lambda: x_N + torch.ones(4),
            lambda: x_N.masked_fill(torch.ones(4, dtype=torch.bool), 0),
            lambda: x_N.gather(0, torch.tensor([1])),
            lambda: torch.cat([x_N, torch.ones(4)]),
            lambda: torch.ones(4)[torch.tensor([1], device="cuda")],
            lambda: torch.tensor(0.0).add_(x_N.sum()),
            lambda: torch._foreach_add([x_N.sum()], [torch.tensor(1.0)]),
        ):
            with pytest.raises(RuntimeError, match=MIXED):
                mix()
        assert (x_N + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]
        counts.reset()
        assert x_N[torch.tensor([3, 0])].tolist() == [3, 0]
        assert counts.to_device_bytes.total() == 16  # the index


def test_a_cpu_generator_draws_nothing_on_the_gpu_and_the_gpu_has_random_numbers_of_its_own() -> None:
    with fake_cuda():
        with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator"):
            torch.rand(3, device="cuda", generator=torch.Generator())
        torch.manual_seed(7)
        here, there = torch.rand(3), torch.rand(3, device="cuda")
        assert here.tolist() != there.tolist()
        torch.manual_seed(7)
        assert torch.rand(3, device="cuda").tolist() == there.tolist()
        assert torch.rand(3).tolist() == here.tolist()


def test_numpy_reads_no_tensor_of_the_gpu() -> None:
    with fake_cuda(), pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        torch.ones(2).cuda().numpy()


def test_autocast_has_the_lists_of_cuda_not_those_of_a_cpu() -> None:
    linear, x_BCHW = nn.Linear(4, 4), torch.randn(1, 8, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.group_norm(x_BCHW.bfloat16(), 2).dtype == torch.bfloat16
    with fake_cuda() as counts, torch.autocast("cuda", dtype=torch.bfloat16):
        linear.cuda()
        assert linear(torch.ones(1, 4, device="cuda")).dtype == torch.bfloat16
        assert F.group_norm(x_BCHW.cuda().bfloat16(), 2).dtype == torch.float32
        assert F.scaled_dot_product_attention(*torch.ones(3, 1, 1, 2, 4, device="cuda")).dtype == torch.bfloat16
        assert counts.cast_bytes.total() > 0


def test_waits_copies_and_kernels_are_counted_where_they_happen() -> None:
    with fake_cuda() as counts:
        x_N = torch.ones(100).cuda()
        assert (counts.to_device_bytes.total(), counts.off_device_bytes.total()) == (400, 0)
        counts.reset()
        y_N = x_N[:50].view(5, 10).mul(2).sum(dim=1)  # two kernels, two views
        assert (total_in(counts.kernels, HERE), counts.syncs.total()) == (2, 0)
        assert float(y_N[0]) == 20.0
        assert y_N.cpu().tolist() == [20.0] * 5
        assert len(x_N[x_N > 0]) == 100  # its size depends on numbers
        torch.cuda.synchronize()
        assert total_in(counts.syncs, HERE) == 3
        assert counts.synchronizes.total() == 1
        assert total_in(counts.off_device_bytes, HERE) == 20
        assert total_in(counts.kernels, "learner/") == 0


def test_a_step_of_an_optimizer_is_that_of_a_cpu() -> None:
    def trained(device: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(144, 2))
        pixels_BCHW = torch.randn(2, 3, 8, 8)
        first = model[0].weight
        model.to(device)
        assert model[0].weight is first
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(pixels_BCHW.to(device)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        return {name: value.cpu() for name, value in model.state_dict().items()}

    with fake_cuda():
        there = trained("cuda")
    here = trained("cpu")
    for name, value in here.items():
        torch.testing.assert_close(value, there[name], rtol=1e-5, atol=1e-6)


def test_a_checkpointed_block_is_made_again_once_with_the_same_dropout() -> None:
    calls = []

    def block(x_N: torch.Tensor) -> torch.Tensor:
        calls.append(len(x_N))
        return F.dropout(x_N.sin(), 0.5) * x_N.cos()

    with fake_cuda():
        gradients = []
        for is_kept in (True, False):
            torch.manual_seed(3)
            x_N = torch.arange(64.0, device="cuda", requires_grad=True)
            y_N = block(x_N) if is_kept else checkpoint(block, x_N, use_reentrant=False)
            (y_N.sum() + y_N.square().sum()).backward()
            gradients.append(x_N.grad.tolist())
    assert gradients[0] == gradients[1]
    assert any(gradients[0])
    assert calls == [64, 64, 64]


def test_gradients_at_inputs_leave_the_leaves_alone() -> None:
    with fake_cuda():
        weight_N = torch.ones(3, device="cuda", requires_grad=True)
        x_N = torch.arange(3.0, device="cuda", requires_grad=True)
        middle_N = weight_N * x_N
        loss = (middle_N * middle_N).sum()
        by_middle_N, by_x_N = torch.autograd.grad(loss, (middle_N, x_N))
        assert by_middle_N.tolist() == [0, 2, 4]
        assert by_x_N.tolist() == [0, 2, 4]
        assert weight_N.grad is None
        loss.backward()
        assert weight_N.grad.tolist() == [0, 2, 8]


def test_a_view_shares_its_numbers() -> None:
    with fake_cuda():
        x_N = torch.zeros(4, device="cuda")
        x_N[1:3] = 5.0
        x_N.detach()[0] = 1.0
        assert x_N.tolist() == [1, 5, 5, 0]


def test_a_copy_into_pinned_memory_is_there_once_somebody_has_waited() -> None:
    with fake_cuda() as counts:
        x_N = torch.ones(3, device="cuda")
        pinned_N, pageable_N = torch.zeros(3, pin_memory=True), torch.zeros(3)
        pinned_N.copy_(x_N, non_blocking=True)
        x_N.fill_(7)  # in the order of the GPU's work: after the copy
        assert pinned_N.tolist() == [0, 0, 0]
        torch.cuda.synchronize()
        assert pinned_N.tolist() == [1, 1, 1]
        assert counts.syncs.total() == 0
        pageable_N.copy_(x_N, non_blocking=True)  # pageable memory makes it wait
        assert pageable_N.tolist() == [7, 7, 7]
        assert counts.syncs.total() == 1


def test_pinned_memory_must_not_change_before_it_has_been_read() -> None:
    with fake_cuda():
        pinned_N = torch.zeros(3).pin_memory()
        pinned_N.to("cuda", non_blocking=True)
        torch.cuda.synchronize()
        pinned_N.fill_(1)
        pinned_N.to("cuda", non_blocking=True)
        pinned_N.fill_(2)
        with pytest.raises(RuntimeError, match="pinned memory was changed"):
            torch.cuda.synchronize()


def test_bytes_are_those_that_travel() -> None:
    with fake_cuda() as counts:
        x_N = torch.ones(10, device="cuda", dtype=torch.float32)
        torch.empty(10, dtype=torch.bfloat16, pin_memory=True).copy_(x_N, non_blocking=True)  # cast on the GPU
        assert counts.off_device_bytes.total() == 20
        torch.empty(10, dtype=torch.bfloat16).copy_(x_N)  # cast on the CPU
        assert counts.off_device_bytes.total() == 60


def test_a_parameter_can_be_given_other_numbers_and_another_dtype() -> None:
    with fake_cuda():
        linear = nn.Linear(2, 2, bias=False).to("cuda")
        linear.weight.data = torch.eye(2, device="cuda").bfloat16()
        x_N = torch.tensor([3.0, 4.0], device="cuda", dtype=torch.bfloat16)
        assert linear(x_N).tolist() == [3, 4]
        assert linear(x_N).dtype == torch.bfloat16
