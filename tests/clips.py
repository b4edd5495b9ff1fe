"""Small CLIPs of random weights in every published layout, made by the packages that published them."""

import gzip
import json
from pathlib import Path

import open_clip
import torch
from torch import nn

MERGES = (
    "a c",
    "t h",
    "ac at</w>",
    "c at</w>",
    "o n",
    "th e</w>",
    "e d</w>",
    "r ed</w>",
    "1 2",
    "ca t</w>",
    "c a",
)
VOCABULARY = 512 + len(MERGES) + 2
LENGTH = 12
PICTURE = {"image_size": 32, "layers": 3, "width": 128, "patch_size": 8, "head_width": 64}
TEXT = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": 64, "heads": 1, "layers": 2}


def random_clip(quick_gelu: bool, seed: int = 0) -> nn.Module:
    """open_clip's, with weights that matter: at its own scale the towers hardly differ from their inputs."""
    torch.manual_seed(seed)
    model = open_clip.CLIP(32, open_clip.CLIPVisionCfg(**PICTURE), open_clip.CLIPTextCfg(**TEXT), quick_gelu)
    for parameter in model.parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def write_vocabulary(folder: Path) -> Path:
    """The merges of these small networks."""
    path = folder / "vocabulary.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *MERGES]).encode()))
    return path


def save_open_clip(model: nn.Module, folder: Path, quick_gelu: bool) -> Path:
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    config = {"embed_dim": 32, "vision_cfg": PICTURE, "text_cfg": TEXT, "quick_gelu": quick_gelu}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    return path
