"""LlamaGen's condition, as the tokens before the image: a class, or the features of a caption.

Shape letters: B images, L caption tokens, D width of a caption feature, S positions of the sequence
[condition | image tokens].
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.models.block_stack import padded_attention
from common.models.llamagen.spec import LlamaGenPolicySpec
from common.protocols import Condition


class ClassEmbedder(nn.Module):
    """Embeds the condition column `label`, int64 [B]; id `num_classes` means no class."""

    num_tokens = 1

    def __init__(self, spec: LlamaGenPolicySpec) -> None:
        super().__init__()
        self.num_classes = spec.num_classes
        self.embedding_table = nn.Embedding(spec.num_classes + 1, spec.transformer.dim)

    def forward(self, condition: Condition) -> Tensor:
        return self.embedding_table(condition["label"])[:, None]

    def null_condition(self, condition: Condition) -> Condition:
        return {"label": torch.full_like(condition["label"], self.num_classes)}

    def attention_mask(self, condition: Condition, length: int) -> None:
        return None  # plainly causal


class CaptionProjection(nn.Module):
    def __init__(self, caption_dim: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(caption_dim, dim, bias=False)
        self.fc2 = nn.Linear(dim, dim, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(features.to(self.fc1.weight.dtype)), approximate="tanh"))


class CaptionEmbedder(nn.Module):
    """Embeds the condition columns `caption_features` [B, L, D] and `caption_mask` [B, L].

    Captions are padded on the left, with zeros, because the last position predicts the first image token.
    """

    uncond_embedding: Tensor

    def __init__(self, spec: LlamaGenPolicySpec) -> None:
        super().__init__()
        self.num_tokens = spec.caption_length
        self.cap_proj = CaptionProjection(spec.caption_dim, spec.transformer.dim)
        # Drawn once and never trained, but part of the published state dict.
        unconditional = torch.randn(spec.caption_length, spec.caption_dim) / spec.caption_dim**0.5
        self.register_buffer("uncond_embedding", unconditional)

    def forward(self, condition: Condition) -> Tensor:
        return self.cap_proj(condition["caption_features"])

    def null_condition(self, condition: Condition) -> Condition:
        features = condition["caption_features"]
        unconditional = self.uncond_embedding.to(features).expand_as(features)
        return {"caption_features": unconditional, "caption_mask": condition["caption_mask"]}

    def attention_mask(self, condition: Condition, length: int) -> Tensor:
        return padded_attention(condition["caption_mask"], length)
