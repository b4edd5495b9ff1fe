"""Cuts the pictures into chunks, and keeps what comes back."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from actors.evaluation.generate_chunk import GenerateChunk, GeneratedPictures
from common.config.recipe import Recipe
from deploy.sampling.layout import Layout, save_png
from deploy.sampling.progress import Progress

RunChunks = Callable[[Sequence[GenerateChunk]], Iterator[tuple[int, GeneratedPictures]]]
"""Index and result of each chunk, as they are done."""


def missing_chunks(
    recipe: Recipe, seed: int, num_pictures: int, layout: Layout, captions: Sequence[np.ndarray] | None
) -> list[GenerateChunk]:
    """The chunks that lack a picture, whole: who is drawn together is part of the arithmetic.

    `captions` are the features of the prompts, float16 [L, D]; each has an equal share of the pictures.
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


def draw(run_chunks: RunChunks, chunks: Sequence[GenerateChunk], layout: Layout, progress: Progress) -> None:
    """Write the pictures that are not there yet, as they arrive."""
    for _, drawn in run_chunks(chunks):
        num_new = 0
        for index, pixels_HWC in zip(drawn.sample_index_N.tolist(), drawn.pixels_NHWC, strict=True):
            if not layout.picture(index).is_file():
                save_png(layout.picture(index), pixels_HWC)
                num_new += 1
        progress.add(num_new)
