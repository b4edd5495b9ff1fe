"""Makes what the `_tiny` recipes read, beside this file: `python -m deploy.recipes.tiny.make`, in the checkout.

    pictures/      drawn shapes in one folder a class, for the class-conditional twins
    captions/      the same with captions, a table for `prepare`
    captioned/     the shards that it makes of them with features, for LlamaGen's text-conditional twin
    prompted/      those with prompts, for Janus-Pro's
    janus/         the random model of tests/data/janus in its first published layout, and its tokenizer
    t5/            the random text encoder of those features, for prompts: 24 numbers wide, a token a byte
    clip/          a random CLIP in OpenAI's layout and its byte pairs, for judges
    classes.txt    1,000 class names, and
    prompts.txt    the captions, for the twins that draw without pictures
    llamagen_*.pt  the random models of tests/data/llamagen, the class-conditional ones with 1,000 classes

It needs the extra `dev`. Weights come out the same wherever they are made.
"""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from common.models.clip.network import Clip, ClipShape, TowerShape
from deploy.prepare.options import PrepareOptions
from deploy.prepare.prepare import prepare

FOLDER = Path("deploy/recipes/tiny")  # relative: shards name what they were made of
FIXTURES = Path("tests/data/llamagen")
JANUS_FIXTURES = Path("tests/data/janus")
IMAGE_SIZE, JANUS_IMAGE_SIZE = 64, 32
JANUS_FILES = ("original/pytorch_model.bin", "original/config.json", "hf/tokenizer.json")
CLASS_TABLE = "cls_embedding.embedding_table.weight"
NUM_CLASSES = 1000
FEATURE_WIDTH = 24
SHAPES = ("circle", "cross", "square", "triangle")
INKS = {"red": "#d7263d", "blue": "#1b6ca8", "green": "#2e933c", "orange": "#f46036"}
PAPERS = {"white": "#f7f7f2", "black": "#222222"}
MERGES = ("r e", "c i", "s q", "p a", "p h", "o t")
CLIP = ClipShape(
    picture=TowerShape(width=64, layers=1, heads=1, hidden=16),
    text=TowerShape(width=64, layers=1, heads=1, hidden=16),
    embedding=16,
    patch=8,
    grid=4,
    context_length=32,
    vocabulary=512 + len(MERGES) + 2,
)


def main() -> None:
    for path in FOLDER.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    make_pictures(FOLDER / "pictures")
    make_weights(FOLDER)
    make_clip(FOLDER / "clip")
    make_names(FOLDER)
    make_text_encoder(FOLDER / "t5")
    make_captions(FOLDER / "captions")
    prepare(
        PrepareOptions(
            input=FOLDER / "captions",
            output=FOLDER / "captioned",
            image_size=IMAGE_SIZE,
            text_encoder=str(FOLDER / "t5"),
        )
    )
    make_janus(FOLDER / "janus")
    prepare(
        PrepareOptions(
            input=FOLDER / "captions",
            output=FOLDER / "prompted",
            image_size=JANUS_IMAGE_SIZE,
            prompts=str(FOLDER / "janus"),
        )
    )


def drawings() -> Iterator[tuple[str, str, Image.Image]]:
    """Shape, caption and picture, of 72 x 64 or 64 x 72 pixels."""
    for number_of_shape, shape in enumerate(SHAPES):
        pairs = [(ink, paper) for ink in INKS for paper in PAPERS]
        for number, (ink, paper) in enumerate(pairs):
            size = (72, 64) if (number + number_of_shape) % 2 else (64, 72)
            picture = Image.new("RGB", size, PAPERS[paper])
            _draw(ImageDraw.Draw(picture), shape, radius=14 + number, colour=INKS[ink])
            yield shape, f"a {ink} {shape} on {paper} paper", picture


def _draw(pen: ImageDraw.ImageDraw, shape: str, radius: int, colour: str) -> None:
    x, y = 32 + radius % 5, 30 + radius % 7
    match shape:
        case "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        case "cross":
            pen.rectangle((x - radius, y - 4, x + radius, y + 4), fill=colour)
            pen.rectangle((x - 4, y - radius, x + 4, y + radius), fill=colour)
        case "square":
            pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
        case "triangle":
            pen.polygon(((x, y - radius), (x - radius, y + radius), (x + radius, y + radius)), fill=colour)


def make_pictures(folder: Path) -> None:
    for number, (shape, _, picture) in enumerate(drawings()):
        path = folder / shape / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, optimize=True)


def make_weights(folder: Path) -> None:
    """Tokenizer and text-conditional generator as they are, the class-conditional ones with more classes."""
    for name in ("llamagen_vq_tiny.pt", "llamagen_t2i_tiny.pt"):
        shutil.copyfile(FIXTURES / name, folder / name)
    nested = torch.load(FIXTURES / "llamagen_c2i_tiny.pt", weights_only=True)["model"]
    torch.save({"model": with_all_classes(nested)}, folder / "llamagen_c2i_tiny.pt")
    flat = with_all_classes(torch.load(FIXTURES / "llamagen_c2i_tiny_fsdp.pt", weights_only=True))
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in flat.items()}  # as FSDP trains them
    torch.save(halved, folder / "llamagen_c2i_tiny_fsdp.pt")


def make_janus(folder: Path) -> None:
    folder.mkdir()
    for file in JANUS_FILES:
        shutil.copyfile(JANUS_FIXTURES / file, folder / Path(file).name)


def with_all_classes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows for classes that the file does not have, drawn like its own; the last row stays that of no class."""
    table = state[CLASS_TABLE]
    known, no_class = table[:-1], table[-1:]
    draws = torch.Generator().manual_seed(0)
    new = torch.randn(NUM_CLASSES - len(known), table.shape[1], generator=draws) * known.std()
    return dict(state) | {CLASS_TABLE: torch.cat([known, new, no_class])}


def make_text_encoder(folder: Path) -> None:
    """A T5 encoder as published ones are kept, which takes any text: its tokens are bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: index for index, word in enumerate(("<pad>", "</s>", "<unk>", *letters))}
    tokens = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, **special).save_pretrained(folder)
    torch.manual_seed(0)
    size = T5Config(vocab_size=len(vocabulary), d_model=FEATURE_WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=3)
    T5EncoderModel(size).save_pretrained(folder)


def make_clip(folder: Path) -> None:
    """In half precision with three numbers beside the weights, as OpenAI's own files are."""
    folder.mkdir()
    torch.manual_seed(0)
    network = Clip(CLIP, "quick_gelu")
    for parameter in network.parameters():  # at its own scale all pictures would be alike
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.3)
    weights = {name: tensor.half() for name, tensor in network.state_dict().items()}
    numbers = {
        "input_resolution": CLIP.image_size,
        "context_length": CLIP.context_length,
        "vocab_size": CLIP.vocabulary,
    }
    torch.save(weights | {name: torch.tensor(each) for name, each in numbers.items()}, folder / "ViT-tiny.pt")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n")


def make_names(folder: Path) -> None:
    captions = [caption for _, caption, _ in drawings()]
    inks = [f"{ink} {shape}" for shape in SHAPES for ink in INKS]
    names = [f"{inks[number % len(inks)]} {number // len(inks)}" for number in range(NUM_CLASSES)]
    for name, lines in (("classes.txt", names), ("prompts.txt", captions)):
        (folder / name).write_text("\n".join(lines) + "\n")


def make_captions(folder: Path) -> None:
    columns: dict[str, list[object]] = {"image": [], "caption": []}
    for _, caption, picture in drawings():
        file = io.BytesIO()
        picture.save(file, format="png", optimize=True)
        columns["image"].append(file.getvalue())
        columns["caption"].append(caption)
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "shapes.parquet")


if __name__ == "__main__":
    main()
