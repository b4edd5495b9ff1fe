"""Recomputed and compiled blocks: the same numbers, the same state dict, and less kept."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.weights_files import load_weights
from common.paths import CHECKOUT
from common.protocols import Condition
from tests.common.models.llamagen.counting_backend import Counter

DATA = CHECKOUT / "tests" / "data" / "llamagen"
TINY = TransformerSize(num_layers=2, num_heads=4, dim=64, ffn_multiple=32)
CLASS_SPEC = LlamaGenPolicySpec(size=TINY, num_classes=10, checkpoint="llamagen_c2i_tiny.pt")
TEXT_SPEC = LlamaGenPolicySpec(size=TINY, conditioning="text", caption_dim=24, checkpoint="llamagen_t2i_tiny.pt")


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """Compiled code is kept for the process; each test counts its own."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def tiny(spec: LlamaGenPolicySpec = CLASS_SPEC, dropout: float = 0.0) -> LlamaGenTransformer:
    model = LlamaGenTransformer(spec, codebook_size=64, grid_size=4, dropout=dropout)
    load_weights(model, DATA / spec.checkpoint, what="policy")
    return model.eval()


def inputs(spec: LlamaGenPolicySpec, num_images: int = 3) -> tuple[Condition, Tensor]:
    random = torch.Generator().manual_seed(1)
    context_BT = torch.randint(64, (num_images, 15), generator=random)
    if spec.conditioning == "class":
        return {"label": torch.arange(num_images)}, context_BT
    mask = torch.arange(120).expand(num_images, -1) >= 100
    features = torch.randn(num_images, 120, 24, generator=random) * mask[..., None]
    return {"caption_features": features, "caption_mask": mask}, context_BT


def gradients(model: nn.Module, spec: LlamaGenPolicySpec = CLASS_SPEC) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(2)  # of dropout
    model(*inputs(spec)).log_softmax(-1)[..., 7].sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_equal(ones: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert ones.keys() == others.keys()
    assert len(ones) >= 18
    for name, one in ones.items():
        assert one.equal(others[name]), name


@pytest.mark.parametrize("spec", [CLASS_SPEC, TEXT_SPEC], ids=["class", "text"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputing_gives_the_same_gradients_bit_for_bit(spec: LlamaGenPolicySpec, dropout: float) -> None:
    model = tiny(spec, dropout).train()
    kept = gradients(model, spec)
    model.activation_checkpointing = True
    assert_equal(gradients(model, spec), kept)


def test_recomputing_gives_the_same_gradients_under_autocast() -> None:
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        kept = gradients(model)
        model.activation_checkpointing = True
        assert_equal(gradients(model), kept)


def test_recomputing_keeps_what_enters_a_block_and_not_what_is_inside() -> None:
    model = tiny()

    def numbers_kept() -> int:
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(*inputs(CLASS_SPEC))
        del logits
        return sum(kept.values())

    all_of_it = numbers_kept()
    model.activation_checkpointing = True
    assert numbers_kept() < all_of_it / 2


def test_only_a_forward_with_gradients_is_recomputed() -> None:
    model = tiny()
    model.activation_checkpointing = True
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model.layers[0].attention.register_forward_hook(count)
    condition, context_BT = inputs(CLASS_SPEC)
    gradients(model)
    assert calls == 2
    with torch.no_grad():
        model(condition, context_BT)
    assert calls == 3
    model.start_decoding(condition).next_logits(None)
    assert calls == 4


def test_compiled_blocks_give_the_same_gradients_under_the_same_keys() -> None:
    model = tiny()
    keys, plain = list(model.state_dict()), gradients(model)
    model.compile_blocks(Counter())
    assert_equal(gradients(model), plain)
    assert list(model.state_dict()) == keys


def test_blocks_share_what_is_compiled_for_a_batch_size() -> None:
    model, counter = tiny(), Counter()
    model.compile_blocks(counter)
    for num_images, expected in ((4, 1), (4, 1), (3, 2), (4, 2), (5, 3), (3, 3)):
        model(*inputs(CLASS_SPEC, num_images))
        assert counter.count == expected


def test_decoding_is_not_compiled() -> None:
    condition, context_BT = inputs(CLASS_SPEC)
    plain, model, counter = tiny(), tiny(), Counter()
    model.compile_blocks(counter)
    expected, decoder = plain.start_decoding(condition), model.start_decoding(condition)
    for tokens_B in (None, context_BT[:, 0], context_BT[:, 1]):
        assert decoder.next_logits(tokens_B).equal(expected.next_logits(tokens_B))
    assert counter.count == 0


def test_compiled_blocks_can_be_recomputed() -> None:
    model = tiny()
    plain = gradients(model)
    counter = Counter()
    model.compile_blocks(counter)
    model.activation_checkpointing = True
    assert_equal(gradients(model), plain)
    assert counter.count == 1


def test_compiled_and_recomputed_blocks_train_under_ddp() -> None:
    model = tiny()
    plain = gradients(model)
    counter = Counter()
    model.compile_blocks(counter)
    model.activation_checkpointing = True
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = gradients(DistributedDataParallel(model, broadcast_buffers=False))
    finally:
        dist.destroy_process_group()
    assert_equal({name.removeprefix("module."): gradient for name, gradient in wrapped.items()}, plain)
    assert counter.count == 1


@pytest.mark.parametrize("spec", [CLASS_SPEC, TEXT_SPEC], ids=["class", "caption"])
def test_compiled_decoding_gives_the_same_logits_and_compiles_its_steps_once(spec: LlamaGenPolicySpec) -> None:
    condition, context_BT = inputs(spec)
    plain, model, counter = tiny(spec), tiny(spec), Counter()
    model.compile_decoding(counter)
    for _ in range(2):
        expected, decoder = plain.start_decoding(condition), model.start_decoding(condition)
        for tokens_B in (None, *context_BT.T):
            torch.testing.assert_close(decoder.next_logits(tokens_B), expected.next_logits(tokens_B))
    assert counter.count == 1
    assert_equal(gradients(model, spec), gradients(plain, spec))


def test_compiled_decoding_draws_the_same_tokens_by_generated_code() -> None:
    condition, context_BT = inputs(CLASS_SPEC)
    plain, model = tiny(), tiny()
    model.compile_decoding()
    expected, decoder = plain.start_decoding(condition), model.start_decoding(condition)
    for tokens_B in (None, *context_BT.T[:5]):
        logits_BV, expected_BV = decoder.next_logits(tokens_B), expected.next_logits(tokens_B)
        torch.testing.assert_close(logits_BV, expected_BV)
        assert logits_BV.argmax(dim=-1).equal(expected_BV.argmax(dim=-1))
