"""Makes the emoji source's files, `atlas.webp` and `index.json`, from the npm package of the pictures:

    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
    python -m deploy.recipes.emoji.make package --out deploy/recipes/emoji

The pictures are 64 px; `--size 64` keeps them so, for a recipe with image_size 64 and `source.path` the folder.
`merges.txt` beside them has the byte pairs of their names, for the small CLIPs that `pretrain` trains.
"""

import argparse
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actors.sources.emoji import ATLAS, COLUMNS, INDEX, Picture
from actors.sources.picture import read_picture
from common.models.clip.tokenizer import learned_merges

PICTURES = Path("img/google/64")
PEOPLE = re.compile(r"\b(men|man|woman|women|person|people|boy|girl)s?\b")
NUM_MERGES = 1000
SERIES = ("clock face", "family", "couple with heart", "kiss", "holding hands")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side; default 32")
    arguments = parser.parse_args()
    rows = list(pictures_of(json.loads((arguments.package / "emoji.json").read_text())))
    tiles = [read_picture(row["file"], arguments.package / PICTURES / row["file"], arguments.size) for row in rows]
    arguments.out.mkdir(parents=True, exist_ok=True)
    atlas_of(tiles).save(arguments.out / ATLAS, lossless=True, quality=100, method=6)
    lines = ",\n".join(json.dumps([row[column] for column in COLUMNS]) for row in rows)
    head = json.dumps({"size": arguments.size, "columns": COLUMNS})
    (arguments.out / INDEX).write_text(f'{head[:-1]}, "pictures": [\n{lines}\n]}}\n')
    merges = learned_merges((Picture(**{key: row[key] for key in COLUMNS}).caption for row in rows), NUM_MERGES)
    (arguments.out / "merges.txt").write_text("".join(f"{left} {right}\n" for left, right in merges))
    print(f"{len(rows)} pictures of {len({row['concept'] for row in rows})} concepts")


def pictures_of(emoji: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """The pictures in the standard's order, each base one before its skin tones."""
    for entry in sorted(emoji, key=lambda each: each["sort_order"]):
        name = entry["name"].lower()
        common = {
            "name": name,
            "category": entry["category"],
            "subcategory": entry["subcategory"],
            "concept": concept_of(name),
        }
        yield common | {"variant": "", "file": entry["image"]}
        for tones, variation in entry.get("skin_variations", {}).items():
            yield common | {"variant": tones.lower(), "file": variation["image"]}


def concept_of(name: str) -> str:
    """What pictures that look alike have in common: the name without who does it and which way he faces."""
    for series in SERIES:
        if series in name:
            return series
    bare = " ".join(re.findall(r"[\w-]+", PEOPLE.sub("", name.replace(" facing right", ""))))
    return bare or "person"


def atlas_of(tiles: list[np.ndarray]) -> Image.Image:
    """The pictures, uint8 [size, size, 3] each, row by row in a square."""
    size = len(tiles[0])
    side = next(side for side in count(1) if side * side >= len(tiles))
    atlas = np.full((side, side, size, size, 3), 255, dtype=np.uint8)
    for place, tile in enumerate(tiles):
        atlas[divmod(place, side)] = tile
    return Image.fromarray(atlas.transpose(0, 2, 1, 3, 4).reshape(side * size, side * size, 3))


if __name__ == "__main__":
    main()
