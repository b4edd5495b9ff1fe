"""The run's pictures inside the page, as data URIs."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

MAX_BYTES = 1_000_000  # of a PNG that is taken as it is
MAX_WIDTH = 1800
MAX_STEPS = 8


@dataclass(frozen=True)
class Picture:
    uri: str
    width: int
    height: int
    alt: str
    caption: str


def main_pictures(samples: Path) -> list[Picture]:
    """Before and after, where the run has come to its end."""
    named = (
        (
            "before_after.png",
            "Free-running samples in a grid: left before the run, right after it",
            "Free-running samples: the generator draws from its own tokens",
        ),
        (
            "held_out.png",
            "Rows of a held-out image, its reconstruction, and teacher-forced samples before and after the run",
            "Held-out images: source, the tokenizer's reconstruction, teacher-forced samples before and after",
        ),
    )
    pictures = [picture(samples / name, alt, caption) for name, alt, caption in named]
    return [picture for picture in pictures if picture]


def step_pictures(samples: Path) -> list[Picture]:
    """Free-running samples during training: the first, the last, and some in between."""
    paths = sorted(samples.glob("step-*.png"))
    if len(paths) > MAX_STEPS:
        paths = [paths[round(index * (len(paths) - 1) / (MAX_STEPS - 1))] for index in range(MAX_STEPS)]
    pictures = []
    for path in paths:
        step = path.stem.removeprefix("step-").lstrip("0") or "0"
        pictures.append(picture(path, f"Free-running samples in a grid at step {step}", f"Step {step}"))
    return [picture for picture in pictures if picture]


def picture(path: Path, alt: str, caption: str) -> Picture | None:
    """None where there is no such file, or one that a killed run left broken."""
    try:
        with Image.open(path) as image:
            image.load()
            kind, data = _encoded(path, image)
            return Picture(f"data:image/{kind};base64,{data}", image.width, image.height, alt, caption)
    except (FileNotFoundError, UnidentifiedImageError, OSError):
        return None


def _encoded(path: Path, image: Image.Image) -> tuple[str, str]:
    """The file itself; where it is large, a smaller WebP."""
    if path.stat().st_size <= MAX_BYTES:
        return "png", base64.b64encode(path.read_bytes()).decode()
    small = image.convert("RGB")
    small.thumbnail((MAX_WIDTH, 8 * MAX_WIDTH))
    buffer = io.BytesIO()
    small.save(buffer, format="webp", quality=85)
    return "webp", base64.b64encode(buffer.getvalue()).decode()
