"""The losses of `pretrain`: for what scores pictures (a classifier, a CLIP), a VQ tokenizer and a generator.

Letters: B images, C channels (3), H, W pixels, K classes, D codebook width, h, w the token grid, T image tokens, V
codebook entries, N latents, L tokens of a caption, E width of CLIP's space.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.condition_drop import drop_conditions
from common.models.clip.network import Clip
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.protocols import Condition, PerceptualMetric, Policy

COMMITMENT_WEIGHT = 0.25


def classifier_loss(model: nn.Module, pixels_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy (nats) of the images' classes."""
    _, logits_BK = model(pixels_BCHW)
    accuracy = (logits_BK.detach().argmax(dim=-1) == labels_B).float().mean()
    return F.cross_entropy(logits_BK, labels_B), {"accuracy": float(accuracy)}


def clip_loss(clip: Clip, prepared_BCHW: Tensor, texts_BL: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Symmetric InfoNCE (nats; arXiv 2103.00020) of pictures and texts; all that share a text belong to it."""
    logits_BB = clip.logit_scale.exp() * clip.embed_pictures(prepared_BCHW) @ clip.embed_texts(texts_BL).T
    is_own_BB = (texts_BL[:, None] == texts_BL).all(dim=-1)
    share_BB = is_own_BB / is_own_BB.sum(dim=-1, keepdim=True)
    loss = (F.cross_entropy(logits_BB, share_BB) + F.cross_entropy(logits_BB.T, share_BB)) / 2
    accuracy = is_own_BB.gather(1, logits_BB.detach().argmax(dim=-1, keepdim=True)).float().mean()
    return loss, {"accuracy": float(accuracy)}


def shifted(pixels_BCHW: Tensor, most: int, draws: torch.Generator) -> Tensor:
    """Each image shifted by its own draw from ±`most` pixels along each axis, edges repeated."""
    B, _, H, W = pixels_BCHW.shape
    padded = F.pad(pixels_BCHW, (most,) * 4, mode="replicate")
    top_B, left_B = torch.randint(2 * most + 1, (2, B), generator=draws)
    return torch.stack(
        [
            image[:, y : y + H, x : x + W]
            for image, y, x in zip(padded, top_B.tolist(), left_B.tolist(), strict=True)
        ]
    )


def tokenizer_loss(
    tokenizer: VQTokenizer, perceptual: PerceptualMetric | None, pixels_BCHW: Tensor
) -> tuple[Tensor, Mapping[str, float]]:
    """L1 + MSE + LPIPS of the reconstruction, and the VQ-VAE terms (arXiv 1711.00937) on unit vectors.

    The straight-through estimator carries the decoder's gradient past the nearest-code choice.
    """
    latents_BDhw = F.normalize(tokenizer.encode_latents(pixels_BCHW), dim=1)
    tokens_BT = tokenizer.nearest_codes(latents_BDhw)
    codes_BDhw = tokenizer.codes(tokens_BT).mT.reshape(latents_BDhw.shape)
    codebook = F.mse_loss(codes_BDhw, latents_BDhw.detach())
    commitment = F.mse_loss(latents_BDhw, codes_BDhw.detach())
    decoded_BCHW = tokenizer.decode_codes(latents_BDhw + (codes_BDhw - latents_BDhw).detach())
    mse = F.mse_loss(decoded_BCHW, pixels_BCHW)
    loss = F.l1_loss(decoded_BCHW, pixels_BCHW) + mse + codebook + COMMITMENT_WEIGHT * commitment
    if perceptual is not None:
        distance = perceptual.distance(decoded_BCHW[:, None], perceptual.reference_features(pixels_BCHW)).mean()
        loss = loss + distance
    return loss, {"mse": float(mse.detach()), "codes": len(tokens_BT.unique())}


@torch.no_grad()
def revive_dead_codes(tokenizer: VQTokenizer, pixels_BCHW: Tensor, generator: torch.Generator) -> int:
    """Move codebook entries unused by this batch onto its random latents; returns how many were moved."""
    latents_BDhw = F.normalize(tokenizer.encode_latents(pixels_BCHW), dim=1)
    tokens_BT = tokenizer.nearest_codes(latents_BDhw)
    dead = torch.ones(tokenizer.codebook_size, dtype=torch.bool, device=tokens_BT.device)
    dead[tokens_BT.flatten()] = False
    latents_ND = latents_BDhw.permute(0, 2, 3, 1).flatten(0, 2)
    chosen = torch.randint(len(latents_ND), (int(dead.sum()),), generator=generator)
    tokenizer.quantize.embedding.weight[dead] = latents_ND[chosen.to(latents_ND.device)]
    return len(chosen)


def next_token_loss(
    policy: Policy, tokens_BT: Tensor, condition: Condition, condition_drop: float, generator: torch.Generator
) -> tuple[Tensor, Mapping[str, float]]:
    """Mean cross-entropy of int64 `tokens` [B, T]; each condition is dropped with probability `condition_drop`."""
    dropped_B = torch.rand(len(tokens_BT), generator=generator).to(tokens_BT.device) < condition_drop
    logits_BTV = policy(drop_conditions(policy, condition, dropped_B), tokens_BT[:, :-1])
    loss = F.cross_entropy(logits_BTV.transpose(1, 2), tokens_BT)
    accuracy = (logits_BTV.detach().argmax(dim=-1) == tokens_BT).float().mean()
    return loss, {"token accuracy": float(accuracy)}
