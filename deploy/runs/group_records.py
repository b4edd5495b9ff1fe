"""The groups of each step, kept in the run folder as Arrow files, so that a run can be learned from again."""

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from common.atomic import replacing
from common.config.recipe import Recipe
from common.errors import DataError
from common.schema import GroupBatch, from_table

FOLDER = "groups"


def keep_groups(folder: Path, step: int, tables: Sequence[pa.Table]) -> None:
    """Write the tables that `step` learns from to `folder`/step-NNNNNN.arrow; a step done again replaces it."""
    folder.mkdir(exist_ok=True)
    with replacing(folder / f"step-{step:06d}.arrow") as temporary:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_file(file, tables[0].schema, options=options) as out,
        ):
            for table in tables:
                out.write_table(table)


def recorded_steps(folder: Path) -> dict[int, Path]:
    """The file of each recorded step, by rising step."""
    found = {path: re.fullmatch(r"step-(\d+)\.arrow", path.name) for path in folder.glob("step-*.arrow")}
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def forget_groups(folder: Path, after_step: int) -> None:
    """Remove what was recorded of later steps, which come again."""
    for step, path in recorded_steps(folder).items():
        if step > after_step:
            path.unlink()


def read_groups(path: Path, recipe: Recipe) -> GroupBatch:
    """The groups of a recorded step. Raises DataError where they are not what the recipe describes."""
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} is not a recording of groups ({str(error).splitlines()[0]})") from None
    groups = from_table(table)
    G, T = groups.group_size, groups.num_tokens
    sizes = {
        "samples per group": (G, recipe.num_samples_drawn, "group.size"),
        "tokens per image": (T, recipe.num_tokens, "image_size"),
        "codebook entries": (groups.codebook_size, recipe.tokenizer.codebook_size, "tokenizer.size"),
    }
    for what, (seen, needed, key) in sizes.items():
        if seen != needed:
            raise DataError(f"{path} has {seen} {what} and the recipe {needed}: leave {key} as it was recorded")
    return groups
