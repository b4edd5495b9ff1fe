"""What becomes of the pictures that come back."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from actors.evaluation.chunks import GenerateChunk, GeneratedPictures
from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.sampling import drawing
from deploy.sampling.drawing import draw, missing_chunks
from deploy.sampling.layout import Flat

CHUNKS = [GenerateChunk((start, start + 1), seed=0, temperature=1.0) for start in range(0, 40, 2)]


def layout_in(folder: Path) -> Flat:
    return Flat(folder, 40, None, "")


def black(chunks: Sequence[GenerateChunk]) -> Iterator[tuple[int, GeneratedPictures]]:
    for index, chunk in enumerate(chunks):
        pixels_NHWC = np.zeros((2, 4, 4, 3), np.uint8)
        yield index, GeneratedPictures(np.array(chunk.sample_indices), np.zeros(2, int), pixels_NHWC)


def test_every_picture_is_written_and_counted_once(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    layout.picture(3).write_bytes(b"there already")
    assert list(draw(black, CHUNKS, layout)) == [2, 1, *[2] * 18]
    assert len(list(tmp_path.iterdir())) == 40
    assert layout.picture(3).read_bytes() == b"there already"


def test_what_waits_to_be_written_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more chunks are asked for than are written, being written or next."""
    written: list[Path] = []
    monkeypatch.setattr(drawing, "save_png", lambda path, _: written.append(path))
    ahead = []

    def watched(chunks: Sequence[GenerateChunk]) -> Iterator[tuple[int, GeneratedPictures]]:
        for index, result in black(chunks):
            ahead.append(index - len(written) // 2)
            yield index, result

    assert sum(draw(watched, CHUNKS, layout_in(tmp_path))) == 40
    assert len(written) == 40
    assert max(ahead) <= drawing.NUM_WRITERS + 1


def test_a_picture_that_cannot_be_written_ends_the_call(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    layout.picture(5).mkdir()
    with pytest.raises(IsADirectoryError):
        list(draw(black, CHUNKS, layout))


def test_a_caption_goes_with_each_sample_of_its_prompt(recipe: Recipe, tmp_path: Path) -> None:
    captions = [np.full((length, 2), length, np.float16) for length in (1, 2, 3)]
    of_four = with_changes(recipe, {"sampling.batch_size": 4, "sampling.output_size": 16})
    chunks = missing_chunks(of_four, 7, 6, layout_in(tmp_path), captions)
    lengths = [[len(caption) for caption in chunk.captions or ()] for chunk in chunks]
    assert lengths == [[1, 1, 2, 2], [3, 3]]
    assert {(chunk.seed, chunk.temperature, chunk.output_size) for chunk in chunks} == {(7, 1.0, 16)}
