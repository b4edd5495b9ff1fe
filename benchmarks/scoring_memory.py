"""Peak memory of the driver while free-running pictures are scored: it is sent features, or the pictures.

Whoever draws is a child process; the driver asks it for chunks through a pipe, one after the other. *Features* is
the scorer of today: the child computes features and sends those and the few pictures that are shown. *Pixels* is
how it was: the child sends pictures, the driver holds them all, then computes their features. Each form and number
of pictures has a driver of its own, which reports by how much its memory rose at the most.

Two cases: the digits, and pictures of noise at a size of one's own with features that are means over blocks of
them, so that the part of the pixels shows.

Letters: N pictures, H, W, C pixels and channels, D features, K classes.
"""

import argparse
import ctypes
import gc
import json
import math
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from actors.evaluation.chunks import FeaturesChunk, GenerateChunk, GeneratedPictures, PictureFeatures
from actors.evaluation.features import Features, build_features, extract_features
from actors.evaluation.models import EvaluationModels
from common.config.load import load_recipe
from common.config.recipe import Recipe
from common.models.loading import load_perceptual_metric, load_policy, load_tokenizer
from common.pixels import to_tensor
from deploy.scoring.scorer import NUM_SHOWN, Evaluation, Scorer

CPU = torch.device("cpu")
DEMO = "deploy/recipes/mnist.yaml"
SCORED = ("fd", "inception_score", "accuracy", "precision", "recall")
HELD_OUT = 8  # images, as few as can be: they are the same in both forms


class BlockMeans:
    """Features of pictures of any size: 8 x 8 means a channel; the first ten are the logits."""

    dim, distance_name, batch_size, knows_labels = 192, "fd", 50, True

    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[Tensor, Tensor]:
        features_ND = F.adaptive_avg_pool2d(to_tensor(pixels_NHWC, CPU), 8).flatten(1)
        return features_ND, features_ND[:, :10]


@dataclass(frozen=True)
class Noise:
    """In place of a GenerateChunk: pictures of noise, each of its own shade."""

    generate: GenerateChunk
    image_size: int

    def run(self, *_: Any) -> GeneratedPictures:
        index_N = np.array(self.generate.sample_indices)
        draws = np.random.default_rng([self.generate.seed, *index_N])
        shape = len(index_N), self.image_size, self.image_size, 3
        pixels_NHWC = draws.integers(200, size=shape, dtype=np.uint8)
        pixels_NHWC += draws.integers(56, size=(len(index_N), 1, 1, 1), dtype=np.uint8)
        return GeneratedPictures(index_N, index_N % 10, pixels_NHWC)


class Peak:
    """By how much the memory rises that malloc has given out, looked at every two milliseconds. Needs glibc.

    Resident memory rises and falls by what the system does with it, too: by as much as is measured here.
    """

    def __enter__(self) -> "Peak":
        self._before = self._most = allocated_bytes()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def rise(self) -> int:
        """Bytes so far."""
        return max(self._most, allocated_bytes()) - self._before

    def _watch(self) -> None:
        while not self._is_over.wait(0.002):
            self._most = max(self._most, allocated_bytes())


class MallocInfo(ctypes.Structure):
    """The struct of mallinfo2(3)."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")),
        *((name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def allocated_bytes() -> int:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    info = mallinfo2()
    return info.uordblks + info.hblkhd  # of the heaps, and what is mapped by itself


class FeatureScorer(Scorer):
    """Today's, which notes the peak once all pictures are looked at: what comes then is the same in both forms."""

    peak: Peak
    looked_at_bytes = 0

    def learn_reference(self, run_chunks: Any) -> None:
        """Before anything is measured: reading the digits takes more than any score."""
        chunks = self._reference_chunks()
        self._learn_reference(chunks, run_chunks(chunks))

    def _free_running_scores(self, *arguments: Any) -> Any:
        self.looked_at_bytes = self.peak.rise()
        return super()._free_running_scores(*arguments)


class PixelScorer(FeatureScorer):
    """As it was: pictures are sent, held, and looked at here."""

    def __init__(self, recipe: Recipe, features: Features):
        super().__init__(recipe)
        self._features = features

    def _features_chunks(self, *arguments: Any) -> Any:
        return [chunk.generate for chunk in super()._features_chunks(*arguments)]

    def _score(self, held_out: Any, generated: Any) -> Evaluation:
        pictures, label_N = [part.pixels_NHWC for part in generated], [part.label_N for part in generated]
        features_ND, logits_NK = extract_features(self._features, pictures)
        none_shown = pictures[0][:0]
        whole = PictureFeatures(features_ND.numpy(), logits_NK.numpy(), np.concatenate(label_N), none_shown)
        result = super()._score(held_out, [whole])
        return replace(result, pictures_NHWC=np.concatenate(pictures)[:NUM_SHOWN])


def serve(recipe: Recipe, made_size: int, chunks: Connection) -> None:
    """The child: chunks come, and their results go."""
    torch.set_num_threads(1)
    models = EvaluationModels(recipe, load_tokenizer(recipe, CPU), load_perceptual_metric(recipe, CPU), CPU)
    policy = load_policy(recipe, CPU)
    if made_size:
        models.__dict__["features"] = BlockMeans()  # what the cached property would load
    while (chunk := chunks.recv()) is not None:
        if made_size and isinstance(chunk, FeaturesChunk):
            made: Any = Noise(chunk.generate, made_size)
            chunk = replace(chunk, generate=made)
        elif made_size and isinstance(chunk, GenerateChunk):
            chunk = Noise(chunk, made_size)
        chunks.send(chunk.run(policy, models))


@contextmanager
def child(recipe: Recipe, made_size: int) -> Iterator[Any]:
    """What runs chunks, in a child process."""
    context = multiprocessing.get_context("spawn")
    chunks, its_chunks = context.Pipe()
    process = context.Process(target=serve, args=(recipe, made_size, its_chunks))
    process.start()

    def run(chunk: Any) -> Any:
        chunks.send(chunk)
        return chunks.recv()

    def run_chunks(wanted: Sequence[Any]) -> list[Any]:
        return [run(chunk) for chunk in wanted]

    yield run_chunks
    chunks.send(None)
    process.join()


def measure(form: str, num_pictures: int, made_size: int) -> dict[str, Any]:
    """The driver: how many bytes its peak rose by, and the scores, for comparison."""
    torch.set_num_threads(1)
    sizes = {
        "evaluation.num_samples": num_pictures,
        "evaluation.num_held_out": HELD_OUT,
        "sampling.batch_size": 50,
    }
    recipe = load_recipe(DEMO, [f"{key}={value}" for key, value in sizes.items()])
    with child(recipe, made_size) as run_chunks:
        if form == "features":
            scorer = FeatureScorer(recipe)
        else:
            scorer = PixelScorer(recipe, BlockMeans() if made_size else build_features(recipe, CPU))
        scorer.learn_reference(run_chunks)
        gc.collect()
        with Peak() as peak:
            scorer.peak = peak
            (result,) = scorer.evaluate(run_chunks, temperature=1.0, num_seeds=1)
    return {
        "looked_at_bytes": scorer.looked_at_bytes,
        "scored_bytes": peak.rise(),
        "scores": {name: result.scores[name] for name in SCORED},
    }


def in_a_process(form: str, num_pictures: int, made_size: int) -> dict[str, Any]:
    asked = json.dumps([form, num_pictures, made_size])
    command = [sys.executable, "-m", "benchmarks.scoring_memory", "--only", asked]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def compare(num_pictures: int, made_size: int) -> dict[str, Any]:
    """Both forms, which must give equal scores, and features over pixels of either peak."""
    forms = {form: in_a_process(form, num_pictures, made_size) for form in ("pixels", "features")}
    scores = [form.pop("scores") for form in forms.values()]
    for name in SCORED:
        assert math.isclose(*(each[name] for each in scores), rel_tol=1e-6), f"the two forms differ in {name}"
    ratios = {
        f"{what}_ratio": forms["features"][f"{what}_bytes"] / forms["pixels"][f"{what}_bytes"]
        for what in ("looked_at", "scored")
    }
    return {"pictures": num_pictures, **forms, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scoring_memory", description=__doc__.split("\n")[0]
    )
    sizes = [500, 1000, 2000]
    parser.add_argument("--pictures", type=int, nargs="+", default=sizes, help="N (default 500 1000 2000)")
    parser.add_argument("--image-size", type=int, default=256, help="of the made pictures (default 256)")
    parser.add_argument("--only", type=json.loads, help=argparse.SUPPRESS)  # a driver's own form, N and size
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(*options.only)))
        return
    results = []
    heads = "".join(f"{head:>10}" for head in ("pixels MB", "features", "ratio"))
    print(f"{'':<23}{'all looked at':>30}{'and scored':>30}\n{'case':<14}{'pictures':>9}{heads}{heads}")
    for case, made_size in {"digits": 0, f"noise, {options.image_size} px": options.image_size}.items():
        for num_pictures in options.pictures:
            result = compare(num_pictures, made_size)
            results.append({"case": case, **result})
            print(f"{case:<14}{num_pictures:>9}{row(result, 'looked_at')}{row(result, 'scored')}", flush=True)
    print(f"\n{json.dumps({'benchmark': 'scoring_memory', **vars(options), 'results': results})}")


def row(result: dict[str, Any], what: str) -> str:
    megabytes = [result[form][f"{what}_bytes"] / 1e6 for form in ("pixels", "features")]
    return f"{megabytes[0]:>10.0f}{megabytes[1]:>10.0f}{result[f'{what}_ratio']:>10.2f}"


if __name__ == "__main__":
    main()
