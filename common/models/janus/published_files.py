"""Janus-Pro's published files hold the whole model: the names of its parts, in both layouts.

    deepseek                                          transformers
    language_model.model.                             model.language_model.
    gen_embed.                                        model.generation_embeddings.
    gen_aligner.layers.0., .layers.2.                 model.generation_aligner.fc1., .hidden_layers.0.
    gen_head.output_mlp_projector., .vision_head.     model.generation_head.proj_out., .vision_head.
    gen_vision_model.                                 model.vqmodel.
    language_model.lm_head.                           lm_head.
    vision_model., aligner.                           model.vision_model., model.aligner.

Our names are deepseek's; the tokenizer's, after `gen_vision_model.`, are LlamaGen's. What generation does not need
(the last two lines) is left out. In transformers' layout the leading `model.` may be gone, where all names had it.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

Layout = Literal["deepseek", "transformers"]
Value = TypeVar("Value")

TOKENIZER = "gen_vision_model."
POLICY = ("language_model.model.", "gen_embed.", "gen_aligner.", "gen_head.")
NOT_NEEDED = ("language_model.lm_head.", "vision_model.", "aligner.")
_ONLY_DEEPSEEK = ("gen_embed.", "gen_aligner.", "gen_head.", TOKENIZER, "language_model.model.")
_ONLY_TRANSFORMERS = ("generation_", "vqmodel.", "language_model.layers.", "language_model.embed_tokens.")

_PREFIXES = (  # deepseek's, transformers'
    ("language_model.model.", "language_model."),
    ("gen_embed.", "generation_embeddings."),
    ("gen_aligner.layers.0.", "generation_aligner.fc1."),
    ("gen_aligner.layers.2.", "generation_aligner.hidden_layers.0."),
    ("gen_head.output_mlp_projector.", "generation_head.proj_out."),
    ("gen_head.vision_head.", "generation_head.vision_head."),
)
_MIDDLE = {"0": "block_1", "1": "attn_1", "2": "block_2"}  # of encoder and decoder
_LEVELS = {"encoder": "down", "decoder": "up"}  # for `conv_blocks`, whose `res` are `block`


def layout_of(names: Iterable[str]) -> Layout | None:
    """The layout of a file of Janus-Pro; None if it is none. ValueError with a name of each if it mixes them."""
    plain = [_plain(name) for name in names]
    deepseek = next((name for name in plain if name.startswith(_ONLY_DEEPSEEK)), None)
    transformers = next((name for name in plain if name.startswith(_ONLY_TRANSFORMERS)), None)
    if deepseek and transformers:
        raise ValueError(f"mix the names of two layouts, {deepseek} and {transformers}")
    return "deepseek" if deepseek else "transformers" if transformers else None


def own_name(name: str, layout: Layout) -> str:
    """Deepseek's name of a tensor."""
    if layout == "deepseek":
        return name
    name = _plain(name)
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    if name.startswith("vqmodel."):
        return TOKENIZER + _tokenizer_name(name.removeprefix("vqmodel."), to_own=True)
    return next((own + name.removeprefix(theirs) for own, theirs in _PREFIXES if name.startswith(theirs)), name)


def published_name(own: str, layout: Layout) -> str:
    """The name in that layout of a tensor that both have."""
    if layout == "deepseek":
        return own
    if own.startswith("language_model.lm_head."):
        return own.removeprefix("language_model.")
    if own.startswith(TOKENIZER):
        return "model.vqmodel." + _tokenizer_name(own.removeprefix(TOKENIZER), to_own=False)
    renamed = (theirs + own.removeprefix(ours) for ours, theirs in _PREFIXES if own.startswith(ours))
    return f"model.{next(renamed, own)}"


def part_of(stored: Mapping[str, Value], needed: Iterable[str]) -> Mapping[str, Value]:
    """Of a whole Janus-Pro, under our names: the generator or the tokenizer, whichever has the `needed` names.

    What is no such file, or has nothing of what is needed, is returned as it is. Names that belong to no part are
    kept, so that they are refused. ValueError if the layouts are mixed.
    """
    layout = layout_of(stored)
    if layout is None:
        return stored
    own = {own_name(name, layout): value for name, value in stored.items()}
    policy = {name: value for name, value in own.items() if not name.startswith((TOKENIZER, *NOT_NEEDED))}
    tokenizer = {
        name.removeprefix(TOKENIZER): value
        for name, value in own.items()
        if not name.startswith((*POLICY, *NOT_NEEDED))
    }
    needed = set(needed)
    best = max((policy, tokenizer), key=lambda part: len(needed & part.keys()))
    return best if needed & best.keys() else stored


def _plain(name: str) -> str:
    return name.removeprefix("model.")


def _tokenizer_name(name: str, *, to_own: bool) -> str:
    """Between `encoder.conv_blocks.0.res.1.conv1.weight` and `encoder.down.0.block.1.conv1.weight`."""
    half, *parts = name.split(".")
    levels, middle = {"conv_blocks": _LEVELS.get(half, ""), "res": "block"}, _MIDDLE
    if to_own:
        levels, middle = ({new: old for old, new in each.items()} for each in (levels, middle))
    if half in _LEVELS and parts[0] == "mid":
        parts[1] = middle.get(parts[1], parts[1])
    elif half in _LEVELS and parts[0] in levels:
        parts[0], parts[2] = levels[parts[0]], levels.get(parts[2], parts[2])
    return ".".join([half, *parts])
