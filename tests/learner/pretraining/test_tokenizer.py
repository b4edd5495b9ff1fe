"""Training of the VQ tokenizer: where its gradients go, and what becomes of codes that nobody uses.

Letters: B images, C, H, W channels and pixels, D codebook width, h, w the token grid.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.models.llamagen.spec import LlamaGenTokenizerSpec, TokenizerSize
from common.models.llamagen.vq_tokenizer import VQTokenizer
from learner.pretraining.losses import COMMITMENT_WEIGHT, revive_dead_codes, tokenizer_loss

V = 50
SIZE = TokenizerSize(
    channels=32, channel_multipliers=(1, 1), num_res_blocks=1, z_channels=8, codebook_size=V, codebook_dim=4
)


class Squares:
    """A perceptual metric that is twice the mean squared error."""

    def to(self, device: torch.device) -> "Squares":
        return self

    def reference_features(self, pixels_BCHW: Tensor) -> Tensor:
        return pixels_BCHW

    def distance(self, pixels_BGCHW: Tensor, reference: Tensor) -> Tensor:
        return 2 * (pixels_BGCHW - reference[:, None]).square().mean(dim=(2, 3, 4))


def tokenizer() -> VQTokenizer:
    torch.manual_seed(0)
    return VQTokenizer(LlamaGenTokenizerSpec(size=SIZE, checkpoint=""), image_size=8)


def pixels(B: int = 2) -> Tensor:
    return torch.rand(B, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def size_of_gradient(module: torch.nn.Module) -> float:
    return sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)


def straight_through_gradient(model: VQTokenizer, pixels_BCHW: Tensor) -> Tensor:
    """The gradient of the reconstruction's L1 and MSE at the chosen codes."""
    with torch.no_grad():
        codes_BDhw = model.codes(model.encode(pixels_BCHW)).mT.unflatten(2, (4, 4))
    codes_BDhw.requires_grad_()
    decoded = model.decode_codes(codes_BDhw)
    (F.l1_loss(decoded, pixels_BCHW) + F.mse_loss(decoded, pixels_BCHW)).backward()
    assert codes_BDhw.grad is not None
    return codes_BDhw.grad


def test_the_loss_is_reconstruction_plus_codebook_plus_commitment() -> None:
    model, pixels_BCHW = tokenizer(), pixels()
    with torch.no_grad():
        loss, shown = tokenizer_loss(model, None, pixels_BCHW)
        tokens_BT = model.encode(pixels_BCHW)
        decoded = model.decode(tokens_BT)
        latents_BTD = F.normalize(model.encode_latents(pixels_BCHW), dim=1).flatten(2).mT
        apart = (latents_BTD - model.codes(tokens_BT)).square().mean()
        mse = (decoded - pixels_BCHW).square().mean()
        expected = (decoded - pixels_BCHW).abs().mean() + mse + (1 + COMMITMENT_WEIGHT) * apart
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert shown["mse"] == pytest.approx(mse.item(), rel=1e-5)
    assert shown["codes"] == len(tokens_BT.unique())


def test_the_perceptual_distance_is_added() -> None:
    with torch.no_grad():
        without, shown = tokenizer_loss(tokenizer(), None, pixels())
        with_distance, _ = tokenizer_loss(tokenizer(), Squares(), pixels())
    assert (with_distance - without).item() == pytest.approx(2 * shown["mse"], rel=1e-4)


def test_the_gradient_passes_straight_through_the_choice_of_codes_to_the_encoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without commitment the latents get the decoder's gradient at the codes, projected by the normalisation."""
    model, pixels_BCHW = tokenizer(), pixels()
    at_codes_BDhw = straight_through_gradient(model, pixels_BCHW)
    latents_BDhw = F.normalize(model.encode_latents(pixels_BCHW), dim=1).detach().requires_grad_()
    along_B1hw = (at_codes_BDhw * latents_BDhw.detach()).sum(dim=1, keepdim=True)
    expected_BDhw = at_codes_BDhw - along_B1hw * latents_BDhw.detach()
    monkeypatch.setattr("learner.pretraining.losses.COMMITMENT_WEIGHT", 0.0)
    monkeypatch.setattr(model, "encode_latents", lambda pixels_BCHW: latents_BDhw)
    tokenizer_loss(model, None, pixels_BCHW)[0].backward()
    assert latents_BDhw.grad is not None
    torch.testing.assert_close(latents_BDhw.grad, expected_BDhw, rtol=1e-4, atol=1e-7)


def test_gradients_reach_encoder_codebook_and_decoder() -> None:
    model = tokenizer()
    tokenizer_loss(model, None, pixels())[0].backward()
    for part in (model.encoder, model.quant_conv, model.quantize, model.post_quant_conv, model.decoder):
        assert size_of_gradient(part) > 0


def test_the_codebook_is_moved_by_its_own_term_alone() -> None:
    """The decoder's gradient goes to the encoder, not to the codes."""
    model, pixels_BCHW = tokenizer(), pixels()
    tokenizer_loss(model, None, pixels_BCHW)[0].backward()
    whole = model.quantize.embedding.weight.grad
    assert whole is not None
    whole = whole.clone()
    model.zero_grad()
    latents_BTD = F.normalize(model.encode_latents(pixels_BCHW), dim=1).flatten(2).mT.detach()
    F.mse_loss(model.codes(model.encode(pixels_BCHW)), latents_BTD).backward()
    torch.testing.assert_close(model.quantize.embedding.weight.grad, whole, rtol=1e-4, atol=1e-8)


def test_codes_that_a_batch_does_not_use_move_onto_its_latents_and_the_others_stay() -> None:
    model, pixels_BCHW = tokenizer(), pixels(4)
    before = model.quantize.embedding.weight.detach().clone()
    used = torch.zeros(V, dtype=torch.bool)
    used[model.encode(pixels_BCHW).flatten()] = True
    assert 0 < used.sum() < V

    revived = revive_dead_codes(model, pixels_BCHW, torch.Generator().manual_seed(0))

    after = model.quantize.embedding.weight
    assert revived == V - used.sum()
    assert after[used].equal(before[used])
    latents_ND = F.normalize(model.encode_latents(pixels_BCHW), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.cdist(after[~used], latents_ND).min(dim=1).values.max() < 1e-3
    assert after.requires_grad
    assert after.grad_fn is None


def test_revived_codes_bring_the_codes_nearer_to_the_latents() -> None:
    model, pixels_BCHW = tokenizer(), pixels(4)
    with torch.no_grad():
        _, before = tokenizer_loss(model, None, pixels_BCHW)
        revive_dead_codes(model, pixels_BCHW, torch.Generator().manual_seed(0))
        _, after = tokenizer_loss(model, None, pixels_BCHW)
    assert after["codes"] > before["codes"]


def test_revival_is_a_function_of_the_generator() -> None:
    weights = []
    for seed in (1, 1, 2):
        model = tokenizer()
        revive_dead_codes(model, pixels(4), torch.Generator().manual_seed(seed))
        weights.append(model.quantize.embedding.weight)
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_codebook_in_full_use_is_left_alone() -> None:
    model = tokenizer()
    used = model.encode(pixels(4)).unique()
    model.quantize.embedding.weight.data = model.quantize.embedding.weight.data[used]
    model.codebook_size = len(used)
    assert revive_dead_codes(model, pixels(4), torch.Generator().manual_seed(0)) == 0
