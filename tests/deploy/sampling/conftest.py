"""Drawing in this process, and a text-conditional recipe with its prompts."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from actors.evaluation.chunks import GenerateChunk, GeneratedPictures
from actors.evaluation.models import EvaluationModels
from actors.rollout_actor import ActorJob
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import build_policy
from common.models.loading import load_policy, load_tokenizer
from common.models.weights_files import save_weights
from deploy.sampling.drawing import RunChunks
from tests.deploy.prepare.conftest import tiny_t5

__all__ = ["tiny_t5"]

LINES = [{"tag": "colors", "prompt": "a red photo"}, {"tag": "colors", "prompt": "green grass"}]


class InProcess:
    """What `on_actors` is, without Ray: the last chunk first, as actors may be. Notes what it was asked for."""

    def __init__(self, dies_after: int | None = None):
        self.chunks: list[GenerateChunk] = []
        self.recipe: Recipe | None = None
        self.job: ActorJob | None = None
        self._dies_after = dies_after  # chunks

    @contextmanager
    def __call__(self, recipe: Recipe, tell: Callable[..., None], job: ActorJob) -> Iterator[RunChunks]:
        self.recipe, self.job = recipe, job
        yield self._run

    def _run(self, chunks: Sequence[GenerateChunk]) -> Iterator[tuple[int, GeneratedPictures]]:
        assert self.recipe is not None
        assert self.job is not None
        self.chunks = list(chunks)
        cpu = torch.device("cpu")
        policy = load_policy(self.recipe, cpu, self.job.checkpoint, may_compile=False)
        models = EvaluationModels(self.recipe, load_tokenizer(self.recipe, cpu), None, cpu)
        for number, index in enumerate(reversed(range(len(chunks)))):
            if number == self._dies_after:
                raise KeyboardInterrupt
            yield index, chunks[index].run(policy, models)


@pytest.fixture
def text_recipe(recipe: Recipe, tmp_path: Path) -> Recipe:
    """The tiny recipe with a text-conditional policy, for the tiny T5's features."""
    text = {"conditioning": "text", "caption_dim": 16, "caption_length": 6}
    changes = {f"policy.{key}": value for key, value in text.items()}
    weights = tmp_path / "text_policy.safetensors"
    changes |= {"source": {"kind": "parquet", "path": "none"}, "policy.checkpoint": str(weights)}
    recipe = with_changes(recipe, changes)
    torch.manual_seed(0)
    policy = build_policy(recipe.policy, codebook_size=20, grid_size=recipe.grid_size)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_weights(policy.state_dict(), weights)
    return recipe


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    """Two lines as GenEval's evaluation_metadata.jsonl has them."""
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path
