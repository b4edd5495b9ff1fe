"""CLIP (arXiv 2103.00020), both towers, of any size, with the parameter names of the published files.

Letters: N pictures or texts, S places of a sequence (patches and a class token, or tokens), W width of a tower, A
heads, E width of the common space, L tokens of a text, C, H, W of a picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["quick_gelu", "gelu"]
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Of the picture towers of H/14, g/14 and bigG/14 by their width; all others of the published have 64."""
_HEAD_WIDTH = 64


@dataclass(frozen=True)
class TowerShape:
    width: int  # W
    layers: int
    heads: int  # A
    hidden: int  # of the perceptrons


@dataclass(frozen=True)
class ClipShape:
    """Sizes of a CLIP, read off the tensors of a file: but for the heads, which no tensor shows."""

    picture: TowerShape
    text: TowerShape
    embedding: int  # E
    patch: int
    grid: int  # patches along each side
    context_length: int  # L
    vocabulary: int

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]], heads: tuple[int, int] | None = None) -> Self:
        """From shapes by name, and the heads of both towers where somebody says them. KeyError, ValueError."""
        width, _, patch, _ = shapes["visual.conv1.weight"]
        places = shapes["visual.positional_embedding"][0]
        vocabulary, text_width = shapes["token_embedding.weight"]
        picture_heads, text_heads = heads or (
            width // HEAD_WIDTHS.get(width, _HEAD_WIDTH),
            text_width // _HEAD_WIDTH,
        )
        return cls(
            picture=_tower(shapes, "visual.transformer", width, picture_heads),
            text=_tower(shapes, "transformer", text_width, text_heads),
            embedding=shapes["text_projection"][1],
            patch=patch,
            grid=round((places - 1) ** 0.5),
            context_length=shapes["positional_embedding"][0],
            vocabulary=vocabulary,
        )

    @property
    def image_size(self) -> int:
        return self.grid * self.patch

    @property
    def name(self) -> str:
        """Such as ViT-L/14, or what it is made of."""
        letter = {(768, 12): "B", (1024, 24): "L", (1280, 32): "H", (1408, 40): "g", (1664, 48): "bigG"}.get(
            (self.picture.width, self.picture.layers), f"{self.picture.layers}x{self.picture.width}"
        )
        return f"ViT-{letter}/{self.patch}" + (f" at {self.image_size} px" if self.image_size != 224 else "")


def _tower(shapes: Mapping[str, tuple[int, ...]], name: str, width: int, heads: int) -> TowerShape:
    if not heads or width % heads:
        raise ValueError(f"{name} is {width} wide, which {heads} heads do not divide")
    start = f"{name}.resblocks."
    layers = 1 + max(int(key.removeprefix(start).partition(".")[0]) for key in shapes if key.startswith(start))
    return TowerShape(width, layers, heads, shapes[f"{start}0.mlp.c_fc.weight"][0])


class Clip(nn.Module):
    def __init__(self, shape: ClipShape, activation: Activation):
        super().__init__()
        self.shape, self.activation = shape, activation
        text = shape.text
        self.visual = PictureTower(shape, activation)
        self.transformer = Transformer(text, activation, is_causal=True)
        self.token_embedding = nn.Embedding(shape.vocabulary, text.width)
        self.positional_embedding = _parameter(shape.context_length, text.width)
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = _parameter(text.width, shape.embedding)
        self.logit_scale = nn.Parameter(torch.zeros(()))  # log

    def embed_pictures(self, prepared_NCHW: Tensor) -> Tensor:
        """Unit vectors [N, E] of pictures that `preprocess.prepared` made."""
        return F.normalize(self.visual(prepared_NCHW).float(), dim=-1)

    def embed_texts(self, tokens_NL: Tensor) -> Tensor:
        """Unit vectors [N, E] of token ids int64; the end token is the largest id and comes before the padding."""
        hidden_NLW = self.transformer(self.token_embedding(tokens_NL) + self.positional_embedding)
        last_NW = self.ln_final(hidden_NLW)[
            torch.arange(len(tokens_NL), device=tokens_NL.device), tokens_NL.argmax(-1)
        ]
        return F.normalize((last_NW @ self.text_projection).float(), dim=-1)


class PictureTower(nn.Module):
    def __init__(self, shape: ClipShape, activation: Activation):
        super().__init__()
        width = shape.picture.width
        self.conv1 = nn.Conv2d(3, width, shape.patch, stride=shape.patch, bias=False)
        self.class_embedding = _parameter(width)
        self.positional_embedding = _parameter(shape.grid**2 + 1, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(shape.picture, activation, is_causal=False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = _parameter(width, shape.embedding)

    def forward(self, prepared_NCHW: Tensor) -> Tensor:
        patches_NSW = self.conv1(prepared_NCHW).flatten(2).mT
        first_N1W = self.class_embedding.to(patches_NSW.dtype).expand(len(patches_NSW), 1, -1)
        hidden_NSW = self.ln_pre(torch.cat([first_N1W, patches_NSW], dim=1) + self.positional_embedding)
        return self.ln_post(self.transformer(hidden_NSW)[:, 0]) @ self.proj


class Transformer(nn.Module):
    def __init__(self, shape: TowerShape, activation: Activation, is_causal: bool):
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(shape, activation, is_causal) for _ in range(shape.layers)))

    def forward(self, hidden_NSW: Tensor) -> Tensor:
        return self.resblocks(hidden_NSW)


class Block(nn.Module):
    def __init__(self, shape: TowerShape, activation: Activation, is_causal: bool):
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width)
        self.attn = Attention(shape, is_causal)
        self.ln_2 = nn.LayerNorm(shape.width)
        self.mlp = Perceptron(shape, activation)

    def forward(self, hidden_NSW: Tensor) -> Tensor:
        hidden_NSW = hidden_NSW + self.attn(self.ln_1(hidden_NSW))
        return hidden_NSW + self.mlp(self.ln_2(hidden_NSW))


class Attention(nn.Module):
    def __init__(self, shape: TowerShape, is_causal: bool):
        super().__init__()
        self._heads, self._is_causal = shape.heads, is_causal
        self.in_proj_weight = _parameter(3 * shape.width, shape.width)  # query, key, value
        self.in_proj_bias = _parameter(3 * shape.width)
        self.out_proj = nn.Linear(shape.width, shape.width)

    def forward(self, hidden_NSW: Tensor) -> Tensor:
        packed = F.linear(hidden_NSW, self.in_proj_weight, self.in_proj_bias)
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in packed.chunk(3, -1))
        mixed_NASw = F.scaled_dot_product_attention(query, key, value, is_causal=self._is_causal)
        return self.out_proj(mixed_NASw.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    def __init__(self, shape: TowerShape, activation: Activation):
        super().__init__()
        self.c_fc = nn.Linear(shape.width, shape.hidden)
        self.c_proj = nn.Linear(shape.hidden, shape.width)
        self._activate: Any = F.gelu if activation == "gelu" else quick_gelu

    def forward(self, hidden_NSW: Tensor) -> Tensor:
        return self.c_proj(self._activate(self.c_fc(hidden_NSW)))


def quick_gelu(numbers: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), what OpenAI trained with."""
    return numbers * torch.sigmoid(1.702 * numbers)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5)
