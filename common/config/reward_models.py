"""The models behind the rewards and scores `clip`, `hps`, `pickscore` and `aesthetic`, and behind GenEval."""

from typing import Literal

from pydantic import Field

from common.config.base import Section
from common.errors import RecipeError

Preference = Literal["clip", "hps", "pickscore", "aesthetic"]
PREFERENCES: tuple[Preference, ...] = ("clip", "hps", "pickscore", "aesthetic")
OBTAIN_FROM = {"hps": "hf://xswu/HPSv2/HPS_v2.1_compressed.pt"}
"""Where a default file comes from, by key."""
WANTED = {
    "clip": "OpenAI's ViT-L-14.pt, or another CLIP of OpenAI, open_clip or transformers",
    "aesthetic_clip": "OpenAI's ViT-L-14.pt, or the same model as open_clip or transformers have it",
    "hps": "HPS_v2.1_compressed.pt or HPS_v2_compressed.pt",
    "pickscore": "a folder that `hf download yuvalkirstain/PickScore_v1 --local-dir FOLDER` made",
    "aesthetic": "LAION's head for embeddings of OpenAI's L/14, sac+logos+ava1-l14-linearMSE.pth",
    "vocabulary": "OpenAI's bpe_simple_vocab_16e6.txt.gz, which the package open_clip_torch contains, or the "
    "merges.txt beside a CLIP of transformers",
}
"""What must be there, in words, by key."""


def named_preferences(text: str) -> list[Preference]:
    """Those that an option lists with commas, in our order. Raises RecipeError."""
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if not asked or set(asked) - set(PREFERENCES):
        raise RecipeError(f"--scores is {text!r}: name one or more of {', '.join(PREFERENCES)}, with commas")
    return [name for name in PREFERENCES if name in asked]


class RewardModelsSection(Section):
    """The weights of what judges pictures. Paths or hf:// addresses; none is read that nothing asks for."""

    clip: str = "checkpoints/ViT-L-14.pt"
    """The CLIP of `clip`, of `aesthetic` and of GenEval's colours, as OpenAI, open_clip or transformers store it;
    its size is read off the file. Published values of `clip` hold for one size only, mostly B/32 or L/14."""
    hps: str = "checkpoints/HPS_v2.1_compressed.pt"
    """The H/14 of `hps`. Version 2 (HPS_v2_compressed.pt) and 2.1 are on scales of their own."""
    pickscore: str = "checkpoints/PickScore_v1"
    """The H/14 of `pickscore`: a file, or a folder of transformers."""
    aesthetic: str = "checkpoints/sac+logos+ava1-l14-linearMSE.pth"
    """The head of `aesthetic`, over embeddings of OpenAI's L/14."""
    aesthetic_clip: str = ""
    """The CLIP under that head, where it is not `clip`."""
    vocabulary: str = "checkpoints/bpe_simple_vocab_16e6.txt.gz"
    """CLIP's byte pairs, the same for all published models: OpenAI's bpe_simple_vocab_16e6.txt.gz, or the
    merges.txt beside a CLIP of transformers."""
    detector: str = "checkpoints/mask2former-swin-small-coco-instance"
    """GenEval's detector: a folder of a Mask2Former of transformers with COCO's 80 classes, or hf://OWNER/REPO."""
    activation: Literal["unknown", "quick_gelu", "gelu"] = "unknown"
    """That of `clip` and `aesthetic_clip` where neither the file says it (OpenAI's own do) nor a config.json or
    open_clip_config.json beside it: quick_gelu for weights of OpenAI, gelu for LAION's."""
    class_prompt: str = Field(default="a photo of a {}", pattern=r"\{\}")
    """What a class is called, with {} for its name, where the policy is conditioned on classes."""
    batch_size: int = Field(default=64, gt=0)
    """Pictures that a model takes at once."""
    autocast: Literal["none", "bfloat16", "float16"] = "none"
    """What the models compute in, where not in float32. HPS was published under float16, on GPUs."""
