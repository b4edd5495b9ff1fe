"""LlamaGen's VQ tokenizer: state dicts, token ids and pictures equal those of the published files.

Shape letters: B images, C channels of a picture, H and W pixels, h and w tokens along a side, T = h * w tokens in
raster order, V codebook entries, D channels of a codebook entry, F channels of a feature map.
"""

from collections.abc import Callable
from copy import deepcopy
from math import isqrt
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import RecipeError
from common.models.llamagen.spec import LlamaGenTokenizerSpec, TokenizerSize

_NUM_GROUPS = 32  # of GroupNorm
_CODEBOOK_USED = 65536  # length of an unused usage statistic in the published files
_MAX_SIMILARITIES = 2**24  # numbers in memory during the search for the nearest code: 64 MB


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_NUM_GROUPS, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = _norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.nin_shortcut = (
            nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        )

    def forward(self, x_BFhw: Tensor) -> Tensor:
        residual = self.conv1(F.silu(self.norm1(x_BFhw)))
        residual = self.conv2(F.silu(self.norm2(residual)))
        return self.nin_shortcut(x_BFhw) + residual


class AttentionBlock(nn.Module):
    """Single-head attention of every position to every other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BFhw: Tensor) -> Tensor:
        normed = self.norm(x_BFhw)
        q, k, v = (part(normed).flatten(2).mT[:, None] for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x_BFhw.shape)
        return x_BFhw + self.proj_out(mixed)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # padded only on the right and below


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if `attention`; the subclass resizes."""

    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, attention: bool) -> None:
        super().__init__()
        self.res = nn.ModuleList(
            ResBlock(channels_in if index == 0 else channels_out, channels_out) for index in range(num_blocks)
        )
        self.attn = nn.ModuleList(AttentionBlock(channels_out) for _ in range(num_blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.res):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        return x


class EncoderLevel(Level):
    def __init__(self, channels_in: int, channels_out: int, num_blocks: int, is_last: bool) -> None:
        super().__init__(channels_in, channels_out, num_blocks, attention=is_last)
        self.downsample = nn.Identity() if is_last else Downsample(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(super().forward(x))


class DecoderLevel(Level):
    def __init__(
        self, channels_in: int, channels_out: int, num_blocks: int, is_first: bool, is_last: bool
    ) -> None:
        super().__init__(channels_in, channels_out, num_blocks, attention=is_first)
        self.upsample = nn.Identity() if is_last else Upsample(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(super().forward(x))


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(ResBlock(channels, channels), AttentionBlock(channels), ResBlock(channels, channels))


class Encoder(nn.Module):
    """Pictures [B, 3, H, W] to features [B, z_channels, h, w]; attention only at the lowest resolution."""

    def __init__(self, size: TokenizerSize) -> None:
        super().__init__()
        widths = [size.channels * multiplier for multiplier in size.channel_multipliers]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, size.channels, 3, padding=1)
        self.conv_blocks = nn.Sequential(
            *(
                EncoderLevel(width_in, width, size.num_res_blocks, is_last=level == last)
                for level, (width_in, width) in enumerate(zip([size.channels, *widths], widths, strict=False))
            )
        )
        self.mid = _middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], size.z_channels, 3, padding=1)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        features = self.mid(self.conv_blocks(self.conv_in(pixels_BCHW)))
        return self.conv_out(F.silu(self.norm_out(features)))


class Decoder(nn.Module):
    """Features [B, z_channels, h, w] to pictures [B, 3, H, W]; the encoder's levels in reverse."""

    def __init__(self, size: TokenizerSize) -> None:
        super().__init__()
        widths = [size.channels * multiplier for multiplier in reversed(size.channel_multipliers)]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(size.z_channels, widths[0], 3, padding=1)
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.Sequential(
            *(
                DecoderLevel(width_in, width, size.num_res_blocks + 1, level == 0, level == last)
                for level, (width_in, width) in enumerate(zip([widths[0], *widths], widths, strict=False))
            )
        )
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, features_BFhw: Tensor) -> Tensor:
        features = self.conv_blocks(self.mid(self.conv_in(features_BFhw)))
        return self.conv_out(F.silu(self.norm_out(features)))


class Codebook(nn.Module):
    """V directions in D dimensions: stored rows may have any length and are normalised at each use."""

    codebook_used: Tensor

    def __init__(self, size: TokenizerSize) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.codebook_size, size.codebook_dim)
        self.register_buffer("codebook_used", torch.zeros(_CODEBOOK_USED))

    def nearest(self, z_ND: Tensor) -> Tensor:
        """Row ids int64 [N] of the nearest directions; the lowest id if two are equally near."""
        # Between unit vectors the smallest distance is the largest cosine. Never in bfloat16, not even under
        # autocast: neighbouring codes would swap.
        with torch.autocast(z_ND.device.type, enabled=False):
            rows_VD = F.normalize(self.embedding.weight.float(), dim=-1)
            chunk = max(1, _MAX_SIMILARITIES // rows_VD.shape[0])
            z_ND = F.normalize(z_ND.float(), dim=-1)
            return torch.cat([(part @ rows_VD.mT).argmax(-1) for part in z_ND.split(chunk)])

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.embedding(tokens), dim=-1)


class VQTokenizer(nn.Module):
    """An `ImageTokenizer` for square pictures of `image_size` pixels; other sizes work too, with another T.

    Raises RecipeError if `image_size` is not a whole number of tokens or a width is not a multiple of 32.
    """

    def __init__(self, spec: LlamaGenTokenizerSpec, *, image_size: int) -> None:
        super().__init__()
        size = spec.network
        if image_size % spec.downsampling:
            raise RecipeError(
                f"image size {image_size} is not a multiple of {spec.downsampling}, the pixels a token of "
                f"this tokenizer covers: choose another image size or tokenizer"
            )
        if size.channels % _NUM_GROUPS:
            raise RecipeError(
                f"a tokenizer with channels {size.channels} cannot be built: channels must be a multiple "
                f"of {_NUM_GROUPS}"
            )
        self.codebook_size = size.codebook_size
        self.num_tokens = (image_size // spec.downsampling) ** 2
        self.encoder = Encoder(size)
        self.decoder = Decoder(size)
        self.quantize = Codebook(size)
        self.quant_conv = nn.Conv2d(size.z_channels, size.codebook_dim, 1)
        self.post_quant_conv = nn.Conv2d(size.codebook_dim, size.z_channels, 1)
        self._compiled: dict[int, Callable[[Tensor], Tensor]] = {}  # decoders, by the batch size that they are for

    def for_scoring(
        self, dtype: torch.dtype, compiled_for: int | None = None, backend: str | Callable = "inductor"
    ) -> Self:
        """This tokenizer with a decoder in `dtype`, compiled for batches of `compiled_for` pictures.

        What stays the same is shared: encoder and codebook, and the decoder's weights if they are of that dtype.
        Batches of another size, as a broken image leaves them, are not compiled: beyond a few sizes PyTorch would
        stop compiling, and rounding would depend on what the process has met before.
        """
        instead: dict[int, object] = {id(part): part for part in (self.encoder, self.quant_conv, self.quantize)}
        for weight in (*self.decoder.parameters(), *self.post_quant_conv.parameters()):
            own = weight if weight.dtype == dtype else nn.Parameter(weight.to(dtype), weight.requires_grad)
            instead[id(weight)] = own
        twin = deepcopy(self, instead)
        if compiled_for is not None:
            twin._compiled = {compiled_for: torch.compile(twin.decoder.forward, backend=backend, dynamic=False)}
        return twin

    def forward(self, codes_BDhw: Tensor) -> Tensor:
        """Decodes, for who trains the decoder."""
        return self.decode_codes(codes_BDhw)

    def train_decoder(self) -> None:
        """Turn the gradients of the decoder on, and of nothing else."""
        self.requires_grad_(False)
        self.decoder.requires_grad_(True)
        self.post_quant_conv.requires_grad_(True)

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """Token ids int64 [B, T] of pixels in [-1, 1]."""
        return self.nearest_codes(self.encode_latents(pixels_BCHW))

    def decode(self, tokens_BT: Tensor) -> Tensor:
        """Images [B, 3, H, W], around [-1, 1] and unclamped; T is any square number."""
        side = isqrt(tokens_BT.shape[1])
        assert side**2 == tokens_BT.shape[1], f"{tokens_BT.shape[1]} tokens are no square grid"
        codes_BTD = self.codes(tokens_BT)
        return self.decode_codes(codes_BTD.mT.unflatten(2, (side, side)))

    def encode_latents(self, pixels_BCHW: Tensor) -> Tensor:
        """The input of the quantizer, [B, D, h, w], before its normalisation."""
        return self.quant_conv(self.encoder(pixels_BCHW.to(self.quant_conv.weight.dtype)))

    def nearest_codes(self, z_BDhw: Tensor) -> Tensor:
        """Token ids int64 [B, T] of the codes whose directions are nearest to those of `z_BDhw`."""
        z_BTD = z_BDhw.flatten(2).mT
        return self.quantize.nearest(z_BTD.flatten(0, 1)).unflatten(0, z_BTD.shape[:2])

    def codes(self, tokens: Tensor) -> Tensor:
        """Unit rows of the codebook, [..., D], for token ids [...]."""
        return self.quantize(tokens)

    def stored_codes(self) -> Tensor:
        """Rows of the codebook, [V, D], of any length."""
        return self.quantize.embedding.weight

    def decode_codes(self, codes_BDhw: Tensor) -> Tensor:
        """Images [B, 3, H, W] of unit codes, in the dtype of the decoder."""
        # Contiguous, because the rounding of convolutions depends on memory layout: equal codes, equal pictures.
        codes_BDhw = codes_BDhw.to(self.post_quant_conv.weight.dtype).contiguous()
        decoder = self._compiled.get(len(codes_BDhw), self.decoder)
        return decoder(self.post_quant_conv(codes_BDhw))
