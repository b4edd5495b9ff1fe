"""The small random Janus of tests/data/janus, in both published layouts, and what it should give."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from common.models.janus.spec import JanusPolicySpec, JanusSize
from common.models.janus.transformer import JanusTransformer
from common.models.llamagen.spec import LlamaGenTokenizerSpec, TokenizerSize
from common.models.llamagen.vq_tokenizer import VQTokenizer
from common.models.weights_files import load_weights
from common.paths import CHECKOUT
from common.protocols import Condition

DATA = CHECKOUT / "tests" / "data" / "janus"
HF, ORIGINAL = DATA / "hf" / "model.safetensors", DATA / "original" / "pytorch_model.bin"
SIZE = JanusSize(num_layers=2, num_heads=4, dim=64, ffn_dim=112, vocabulary_size=300)
POLICY = JanusPolicySpec(family="janus", size=SIZE, prompt_length=28, checkpoint="")
TOKENIZER = LlamaGenTokenizerSpec(
    size=TokenizerSize(
        channels=32, channel_multipliers=(1, 1, 2, 1), num_res_blocks=1, z_channels=16, codebook_size=64
    ),
    checkpoint="",
)
RECIPE: dict[str, Any] = {
    "image_size": 32,
    "source": {"kind": "parquet", "path": "shards"},
    "tokenizer": TOKENIZER.model_dump(),
    "policy": POLICY.model_dump(),
    "reward": {"mse": 1, "lpips": 0},
    "learner": {"num_steps": 1, "images_per_step": 8},
}


def policy(path: Path = ORIGINAL, spec: JanusPolicySpec = POLICY) -> JanusTransformer:
    model = JanusTransformer(spec, codebook_size=64, grid_size=4)
    load_weights(model, path, what="policy")
    return model.eval()


def tokenizer(path: Path = ORIGINAL) -> VQTokenizer:
    model = VQTokenizer(TOKENIZER, image_size=32)
    load_weights(model, path, what="tokenizer")
    return model.eval()


def expected() -> dict[str, Tensor]:
    return load_file(DATA / "expected.safetensors")


def condition() -> Condition:
    golden = expected()
    return {name: golden[name] for name in ("prompt_ids", "null_prompt_ids", "prompt_mask")}
