"""Small CLIPs of random weights in every published layout, made by the packages that published them."""

import gzip
import json
from pathlib import Path

import open_clip
import torch
from torch import nn

from common.config.reward_models import RewardModelsSection

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


def save_openai(model: nn.Module, path: Path) -> Path:
    """Its state dict, with the three numbers that lie beside the weights."""
    numbers = {"input_resolution": 32, "context_length": LENGTH, "vocab_size": VOCABULARY}
    torch.save(model.state_dict() | {name: torch.tensor(number) for name, number in numbers.items()}, path)
    return path


def reward_models(folder: Path) -> RewardModelsSection:
    """Random models for all preference rewards: of the seeds 1, 2 and 3, and a head."""
    torch.manual_seed(4)
    sizes = ((0, 32, 16), (2, 16, 8), (4, 8, 1))
    head = {f"layers.{place}.weight": torch.randn(after, before) / 4 for place, before, after in sizes}
    head |= {f"layers.{place}.bias": torch.randn(after) / 4 for place, _, after in sizes}
    torch.save(head, folder / "head.pth")
    torch.save({"state_dict": random_clip(False, 2).state_dict()}, folder / "hps.pt")
    torch.save(random_clip(False, 3).state_dict(), folder / "pickscore.bin")
    return RewardModelsSection(
        clip=str(save_openai(random_clip(True, 1), folder / "clip.pt")),
        hps=str(folder / "hps.pt"),
        pickscore=str(folder / "pickscore.bin"),
        aesthetic=str(folder / "head.pth"),
        vocabulary=str(write_vocabulary(folder)),
    )


def save_detector(folder: Path, num_labels: int = 80) -> Path:
    """A folder of a Mask2Former of random weights, as small as one can be."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    swin = SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        dim_feedforward=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=6,
        num_labels=num_labels,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    return folder
