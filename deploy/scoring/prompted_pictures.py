"""Pictures in files, each with the prompt that it was drawn from.

GenEval's layout, as `sample` writes it    00000/metadata.jsonl and 00000/samples/0000.png …, a folder a prompt
HPD's benchmark                            anime/00000.jpg … beside prompts in anime.json, a folder a style
a folder                                   pictures in order, as many of each prompt
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actors.evaluation.picture_files import is_overview
from actors.sources.class_folders import is_left_behind
from actors.sources.picture import SUFFIXES
from common.errors import DataError
from deploy.sampling.prompts import read_prompts

METADATA = "metadata.jsonl"


@dataclass(frozen=True)
class PromptedPicture:
    path: Path
    prompt: str
    group: str = ""  # a style, where there are styles


def find_prompted(folder: Path, prompts: Path | None) -> list[PromptedPicture]:
    """All pictures of a folder with their prompts. `prompts`: a file of them, or a folder of a file a style.

    Raises DataError where there are none, or their numbers do not fit.
    """
    if not folder.is_dir():
        raise DataError(f"--pictures {folder} is no folder: name one of pictures with prompts")
    of_prompts = geneval_folders(folder)
    if of_prompts:
        if prompts is not None:
            raise DataError(f"{folder} holds the prompts of its pictures ({METADATA}): leave --prompts out")
        return list(_geneval(of_prompts))
    if prompts is None:
        raise DataError(
            f"{folder} is not in GenEval's layout (00000/{METADATA}), so that it says nothing of prompts: name "
            "their file by --prompts, or the folder of HPD's anime.json and others"
        )
    if prompts.is_dir():
        return list(_styles(folder, prompts))
    return list(_in_order(folder, prompts, ""))


def geneval_folders(folder: Path) -> list[Path]:
    """The folders of GenEval's layout, one a prompt, in order."""
    found = (path for path in folder.iterdir() if (path / METADATA).is_file())
    return sorted(path for path in found if path.name.isdigit())


def pictures_in(folder: Path) -> list[Path]:
    """In the order of their numbers, or of their names where some have none; without the overview of `sample`."""
    found = [
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_left_behind(path.name)
    ]
    found = [path for path in found if not is_overview(path)]
    if all(path.stem.isascii() and path.stem.isdigit() for path in found):
        return sorted(found, key=lambda path: (int(path.stem), path.name))
    return sorted(found)


def _geneval(folders: list[Path]) -> Iterator[PromptedPicture]:
    for folder in folders:
        (prompt,) = _one(folder / METADATA)
        samples = folder / "samples"
        paths = pictures_in(samples) if samples.is_dir() else []
        if not paths:
            raise DataError(f"{folder} holds no pictures in samples/: draw them, or move the folder away")
        yield from (PromptedPicture(path, prompt) for path in paths)


def _one(path: Path) -> list[str]:
    prompts = [prompt.text for prompt in read_prompts(path, str(path))]
    if len(prompts) != 1:
        raise DataError(f"{path} holds {len(prompts)} prompts: GenEval's layout has one a folder")
    return prompts


def _styles(folder: Path, prompts: Path) -> Iterator[PromptedPicture]:
    files = sorted(path for path in prompts.iterdir() if path.suffix == ".json" and (folder / path.stem).is_dir())
    if not files:
        raise DataError(
            f"--prompts {prompts} holds no STYLE.json of a folder of {folder}: HPD's benchmark has anime.json for "
            "anime/00000.jpg"
        )
    for file in files:
        yield from _in_order(folder / file.stem, file, file.stem)


def _in_order(folder: Path, file: Path, group: str) -> Iterator[PromptedPicture]:
    paths, prompts = pictures_in(folder), read_prompts(file)
    if not paths or len(paths) % len(prompts):
        raise DataError(
            f"{folder} holds {len(paths)} pictures and {file} {len(prompts)} prompts: there must be as many "
            "pictures of each prompt, one prompt after the other"
        )
    per_prompt = len(paths) // len(prompts)
    for index, path in enumerate(paths):
        yield PromptedPicture(path, prompts[index // per_prompt].text, group)
