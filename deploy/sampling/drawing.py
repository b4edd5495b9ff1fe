"""Divides the pictures into chunks and saves the results."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from actors.evaluation.chunks import GenerateChunk, GeneratedPictures
from common.config.recipe import Recipe
from deploy.sampling.layout import Layout, save_png

NUM_WRITERS = 4

RunChunks = Callable[[Sequence[GenerateChunk]], Iterator[tuple[int, GeneratedPictures]]]
"""Index and result of each chunk, in the order of completion."""


def missing_chunks(
    recipe: Recipe, seed: int, num_pictures: int, layout: Layout, captions: Sequence[np.ndarray] | None
) -> list[GenerateChunk]:
    """The chunks with missing pictures, as whole chunks: the batch affects the last bits of each picture.

    `captions` are the prompts' features, float16 [L, D]; each prompt gets an equal share of the pictures.
    """
    sampling = recipe.sampling
    chunks = []
    for start in range(0, num_pictures, sampling.batch_size):
        indices = tuple(range(start, min(start + sampling.batch_size, num_pictures)))
        if all(layout.picture(index).is_file() for index in indices):
            continue
        own = None
        if captions is not None:
            per_prompt = num_pictures // len(captions)
            own = tuple(captions[index // per_prompt] for index in indices)
        chunks.append(GenerateChunk(indices, seed, sampling.temperature, own, sampling.output_size))
    return chunks


def draw(run_chunks: RunChunks, chunks: Sequence[GenerateChunk], layout: Layout) -> Iterator[int]:
    """Write the missing pictures as they arrive; yields for each chunk how many of them it had.

    Threads write, because compression takes time and an actor that has delivered a chunk waits for its next one.
    """
    with ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="pictures") as writers:
        writing: deque[Future[int]] = deque()
        for _, drawn in run_chunks(chunks):
            writing.append(writers.submit(_write, drawn, layout))
            while writing and (writing[0].done() or len(writing) > NUM_WRITERS):  # bounds the waiting chunks
                yield writing.popleft().result()
        for written in writing:
            yield written.result()


def _write(drawn: GeneratedPictures, layout: Layout) -> int:
    """Write the missing pictures of a chunk; returns their number."""
    pictures = zip(drawn.sample_index_N.tolist(), drawn.pixels_NHWC, strict=True)
    missing = [(path, pixels) for index, pixels in pictures if not (path := layout.picture(index)).is_file()]
    for path, pixels_HWC in missing:
        save_png(path, pixels_HWC)
    return len(missing)
