"""The loss that trains a VQ tokenizer: reconstruction, perceptual distance, codebook and commitment.

Letters: B images, C channels (3), H, W pixels, D codebook width, h, w the token grid.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.protocols import PerceptualMetric

COMMITMENT_WEIGHT = 0.25


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
    """Move codebook entries that this batch does not use onto random latents of it; returns how many."""
    latents_BDhw = F.normalize(tokenizer.encode_latents(pixels_BCHW), dim=1)
    tokens_BT = tokenizer.nearest_codes(latents_BDhw)
    dead = torch.ones(tokenizer.codebook_size, dtype=torch.bool, device=tokens_BT.device)
    dead[tokens_BT.flatten()] = False
    latents_ND = latents_BDhw.permute(0, 2, 3, 1).flatten(0, 2)
    chosen = torch.randint(len(latents_ND), (int(dead.sum()),), generator=generator)
    tokenizer.quantize.embedding.weight[dead] = latents_ND[chosen.to(latents_ND.device)]
    return len(chosen)
