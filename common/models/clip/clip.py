"""A CLIP from a weights file: pictures and texts to unit vectors of one space.

Letters: N pictures or texts, E width of the common space, C, H, W of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import CheckpointError
from common.models.clip.layouts import said_of, weights_of
from common.models.clip.network import Activation, Clip, ClipShape
from common.models.clip.tokenizer import ClipTokenizer, load_tokenizer
from common.models.weights_files import Misfit, find_weights, misfit
from common.models.weights_reading import WeightsFile, not_finite, read_shapes, read_tensors, shapes_of


@dataclass(frozen=True)
class ClipAddress:
    """Where a CLIP is, in a recipe's words."""

    weights: str  # path or hf:// address
    setting: str  # the key that names it
    activation: Activation | None  # where the file does not say it
    activation_setting: str
    vocabulary: str
    vocabulary_setting: str
    wanted: str  # what to point those keys at, for messages
    wanted_vocabulary: str
    obtain_from: str = ""  # of the weights


class LoadedClip:
    """Frozen, float32, on a device."""

    def __init__(
        self, network: Clip, tokenizer: ClipTokenizer, device: torch.device, autocast: torch.dtype | None
    ):
        self._network = network.to(device).eval().requires_grad_(False)
        self._tokenizer, self._device, self._autocast = tokenizer, device, autocast

    @property
    def name(self) -> str:
        return f"{self._network.shape.name}, {self._network.activation}"

    @property
    def width(self) -> int:
        """E."""
        return self._network.shape.embedding

    @property
    def scale(self) -> float:
        """What the cosine was multiplied by in training."""
        return float(self._network.logit_scale.exp())

    @torch.no_grad()
    def embed_pictures(self, pixels_NCHW: Tensor) -> Tensor:
        """Unit vectors float32 [N, E] of pictures in [0, 1], of any size."""
        from common.models.clip.preprocess import prepared  # torchvision takes a second to import

        prepared_NCHW = prepared(pixels_NCHW.to(self._device).float(), self._network.shape.image_size)
        with self._precision():
            return self._network.embed_pictures(prepared_NCHW)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors float32 [N, E]."""
        with self._precision():
            return self._network.embed_texts(self._tokenizer(texts).to(self._device))

    def _precision(self) -> torch.autocast:
        dtype = self._autocast
        return torch.autocast(self._device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def load_clip(address: ClipAddress, device: torch.device, autocast: torch.dtype | None = None) -> LoadedClip:
    """Raises CheckpointError: a file that is missing, damaged, or no CLIP; a vocabulary that does not fit."""
    file = _file(address)
    stored = read_tensors(file)
    network = _network(stored, file, address)
    weights = weights_of(stored)
    if sick := not_finite(weights):
        raise file.refused(f"hold NaN or infinity in {sick}: get a sound copy")
    network.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return LoadedClip(network, _tokenizer(network.shape, address), device, autocast)


def check_clip(address: ClipAddress) -> ClipShape:
    """Raises what `load_clip` would, without reading more than the shapes where the file allows that."""
    file = _file(address)
    shapes = read_shapes(file)
    with torch.device("meta"):
        stored = {name: torch.empty(shape) for name, shape in shapes.items()}
    shape = _network(stored, file, address).shape
    _tokenizer(shape, address)
    return shape


def _file(address: ClipAddress) -> WeightsFile:
    return find_weights(address.weights, "CLIP weights", address.setting, address.obtain_from, address.wanted)


def _tokenizer(shape: ClipShape, address: ClipAddress) -> ClipTokenizer:
    return load_tokenizer(
        address.vocabulary,
        shape.vocabulary,
        shape.context_length,
        setting=address.vocabulary_setting,
        wanted=address.wanted_vocabulary,
    )


def _network(stored: dict[str, Tensor], file: WeightsFile, address: ClipAddress) -> Clip:
    """On the meta device, of the file's sizes."""
    shapes = shapes_of(weights_of(stored))
    said = said_of(stored, address.weights, file)
    activation = said.activation or address.activation
    network = None
    try:
        with torch.device("meta"):
            network = Clip(ClipShape.of(shapes, said.heads), activation or "gelu")
        found: Misfit | str = misfit(network, shapes)
    except (KeyError, ValueError, IndexError) as error:
        found = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
    if network is None or found:
        raise file.refused(
            f"are no CLIP with a vision transformer, as OpenAI, open_clip or transformers store it ({found}): get "
            "such a file"
        )
    if activation is None:
        raise CheckpointError(
            f"The CLIP weights {file.path} do not say their activation, and no settings lie beside them "
            f"(config.json, open_clip_config.json): set {address.activation_setting}=quick_gelu for weights of "
            "OpenAI, gelu for those of LAION; the wrong one lowers every score"
        )
    return network
