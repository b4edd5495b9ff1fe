"""CLIP's weights in every published layout, under the names of OpenAI's and open_clip's files.

    OpenAI         a TorchScript archive in float16, or its state dict; three numbers lie beside the weights
    open_clip      a state dict of the same names; a text tower of its own class has `text.` before them
    transformers   vision_model, text_model: query, key and value apart, projections transposed

A tensor may be on the meta device, so that a file can be checked by its shapes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import CheckpointError
from common.hub import SCHEME, located
from common.models.clip.network import Activation
from common.models.weights_reading import WeightsFile

Weights = dict[str, Tensor]

_MARK_OF_OPENAI = "input_resolution"
_NO_WEIGHTS = re.compile(r"(^|\.)(input_resolution|context_length|vocab_size|attn_mask|position_ids)$")
_TRANSFORMERS = (  # in order: what a name of transformers has in it, and what stands there in the others
    ("vision_model.", "visual."),
    ("text_model.", ""),
    ("embeddings.patch_embedding.", "conv1."),
    ("embeddings.class_embedding", "class_embedding"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding.", "token_embedding."),
    ("pre_layrnorm.", "ln_pre."),
    ("post_layernorm.", "ln_post."),
    ("final_layer_norm.", "ln_final."),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.", "attn."),
)
_PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_CONFIGS = ("config.json", "open_clip_config.json")


@dataclass(frozen=True)
class Said:
    """What a file or the settings beside it say that the shapes of tensors do not."""

    activation: Activation | None
    heads: tuple[int, int] | None  # of the picture and of the text tower


def weights_of(stored: Mapping[str, Tensor]) -> Weights:
    """The tensors under the names of OpenAI and open_clip."""
    weights = {name: tensor for name, tensor in stored.items() if not _NO_WEIGHTS.search(name)}
    if any(name.startswith("vision_model.") for name in weights):
        return _of_transformers(weights)
    return {name.removeprefix("text."): tensor for name, tensor in weights.items()}


def said_of(stored: Mapping[str, Tensor], address: str | Path, file: WeightsFile) -> Said:
    """What the stored numbers, or the config.json or open_clip_config.json beside the file, say.

    Of an hf:// address the settings are fetched too. Raises CheckpointError where they cannot be read.
    """
    if _MARK_OF_OPENAI in stored:
        return Said("quick_gelu", None)
    is_transformers = any(name.startswith("vision_model.") for name in stored)
    name = _CONFIGS[0] if is_transformers else _CONFIGS[1]
    path = file.path.parent / name
    if str(address).startswith(SCHEME):
        path = _fetched(f"{str(address).rpartition('/')[0]}/{name}", file) or path
    if not path.is_file():
        return Said(None, None)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return _of_transformers_config(tree) if is_transformers else _of_open_clip_config(tree)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}, beside {file.path.name}, describes no CLIP ({error!r}): get it anew"
        ) from None


def _fetched(address: str, file: WeightsFile) -> Path | None:
    try:
        return located(address, file.setting)
    except CheckpointError:  # a repository may lack it: then the recipe must say the activation
        return None


def _of_transformers_config(tree: Mapping[str, Any]) -> Said:
    towers = [tree.get("vision_config") or {}, tree.get("text_config") or {}]
    activations = {tower.get("hidden_act", "quick_gelu") for tower in towers}  # the library's default
    if len(activations) > 1 or not activations <= {"quick_gelu", "gelu"}:
        raise ValueError(f"hidden_act {', '.join(sorted(activations))}: it must be gelu or quick_gelu")
    heads = [tower.get("num_attention_heads", usual) for tower, usual in zip(towers, (12, 8), strict=True)]
    return Said(activations.pop(), (int(heads[0]), int(heads[1])))


def _of_open_clip_config(tree: Mapping[str, Any]) -> Said:
    model = tree["model_cfg"]
    picture, text = model["vision_cfg"], model["text_cfg"]
    heads = int(picture["width"]) // int(picture.get("head_width", 64)), int(text.get("heads", 8))
    return Said("quick_gelu" if model.get("quick_gelu", False) else "gelu", heads)


def _of_transformers(weights: Weights) -> Weights:
    renamed: Weights = {}
    apart: dict[str, dict[str, Tensor]] = {}  # query, key and value by the name of their packed form
    for name, tensor in weights.items():
        if name in _PROJECTIONS:
            renamed[_PROJECTIONS[name]] = tensor.T
            continue
        for theirs, ours in _TRANSFORMERS:
            name = name.replace(theirs, ours)
        if match := re.fullmatch(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)", name):
            apart.setdefault(f"{match[1]}in_proj_{match[3]}", {})[match[2]] = tensor
        else:
            renamed[name] = tensor
    packed = {name: torch.cat([parts[part] for part in "qkv"]) for name, parts in apart.items() if len(parts) == 3}
    return renamed | packed
