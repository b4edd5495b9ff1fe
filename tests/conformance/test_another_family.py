"""common/models/README.md, followed in a copy of the checkout: a dummy family is trained, scored and planned."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.paths import CHECKOUT

SPEC = '''
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from common.config.base import Section


class DummyPolicySpec(Section):
    """A bag of tokens."""

    family: Literal["dummy"]
    """The model family."""
    num_classes: int = Field(gt=0)
    """Classes."""
    checkpoint: str
    """Weights."""
    obtain_from: str = ""
    """Where to get them."""

    @property
    def conditioning(self) -> Literal["class", "text"]:
        return "class"

    @property
    def condition_bytes(self) -> int:
        return 4

    @property
    def released_context_is_whole(self) -> bool:
        return False

    def problems(self, source_kind: str) -> Iterator[str]:
        if self.num_classes > 100:
            yield "policy.num_classes is above 100: a dummy knows no more"
'''
CONDITIONS = '''
import numpy as np


class DummyConditions:
    """The class as one float, under a name of its own."""

    def __init__(self, spec):
        self.columns = {"hue": ("float32", ())}

    def of_class(self, label):
        return {"hue": np.float32(label)}

    def of_shard_row(self, values):
        return self.of_class(values["label"])

    def shard_misfits(self, folder, manifest):
        yield from ()
'''
POLICY = '''
import torch
from torch import nn


class DummyPolicy(nn.Module):
    """Each token's logits are a table's row for the token before, plus the class's hue times a row."""

    activation_checkpointing = False
    as_released = False
    num_blocks = 1

    def __init__(self, spec, *, codebook_size, grid_size, dropout=0.0):
        super().__init__()
        self.codebook_size, self.num_tokens = codebook_size, grid_size**2
        self.table = nn.Embedding(codebook_size + 1, codebook_size)
        self.hue = nn.Parameter(torch.zeros(codebook_size))

    def forward(self, condition, context_BT, head=True):
        first_B1 = torch.full_like(context_BT[:, :1], self.codebook_size)
        hidden_BTD = self.table(torch.cat([first_B1, context_BT], dim=1))
        hidden_BTD = hidden_BTD + condition["hue"][:, None, None] * self.hue
        return self.logits(hidden_BTD) if head else hidden_BTD

    def logits(self, hidden_ND):
        return hidden_ND.float()

    def null_condition(self, condition):
        return {"hue": torch.zeros_like(condition["hue"])}

    def start_decoding(self, condition):
        return DummyDecoder(self, condition)

    def compile_blocks(self):
        """Nothing to compile."""

    def compile_decoding(self):
        """Nothing to compile."""


class DummyDecoder:
    def __init__(self, policy, condition):
        self._policy, self._condition = policy, condition

    @torch.no_grad()
    def next_logits(self, tokens_B):
        N = len(self._condition["hue"])
        last_B = torch.full((N,), self._policy.codebook_size) if tokens_B is None else tokens_B
        return self._policy.table(last_B) + self._condition["hue"][:, None] * self._policy.hue
'''


def replaced(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, f"{path.name}: {old}"
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The product with the dummy family: a folder, and the lines that the page names."""
    copy = tmp_path / "checkout"
    for room in ("actors", "common", "deploy", "learner"):
        shutil.copytree(CHECKOUT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    folder = copy / "common" / "models" / "dummy"
    folder.mkdir()
    for name, text in (("spec", SPEC), ("conditions", CONDITIONS), ("policy", POLICY), ("__init__", "")):
        (folder / f"{name}.py").write_text(text)
    replaced(
        copy / "common" / "models" / "specs.py",
        (
            "    LlamaGenPolicySpec | JanusPolicySpec, ",
            "    LlamaGenPolicySpec | JanusPolicySpec | DummyPolicySpec, ",
        ),
        (
            "from common.models.janus import spec as janus\n",
            "from common.models.dummy.spec import DummyPolicySpec\n"
            "from common.models.janus import spec as janus\n",
        ),
    )
    replaced(
        copy / "common" / "models" / "families.py",
        ('"janus": JanusTransformer}', '"janus": JanusTransformer, "dummy": DummyPolicy}'),
        ('"janus": PromptConditions}', '"janus": PromptConditions, "dummy": DummyConditions}'),
        (
            "from common.models.janus.conditions import PromptConditions\n",
            "from common.models.dummy.conditions import DummyConditions\n"
            "from common.models.dummy.policy import DummyPolicy\n"
            "from common.models.janus.conditions import PromptConditions\n",
        ),
    )
    return copy


@pytest.fixture
def recipe_file(small_run, tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    for index in range(8):
        path = tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(path)
    source = {"kind": "image_folder", "path": str(tmp_path / "pictures")}
    changes = {"source": source, "reward.lpips": 0, "learner.num_steps": 2, "sampling.guidance_scale": 2}
    recipe = small_run("dummy", changes).model_dump(mode="json")
    recipe["policy"] = {"family": "dummy", "num_classes": 2, "checkpoint": str(tmp_path / "dummy.pt")}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def test_a_family_added_as_the_page_says_is_checked_planned_trained_and_drawn_from(
    checkout: Path, recipe_file: Path, tmp_path: Path
) -> None:
    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    make = (
        "import torch; from common.models.dummy.policy import DummyPolicy; torch.manual_seed(0); "
        "policy = DummyPolicy(None, codebook_size=20, grid_size=8); "
        f"torch.save(policy.state_dict(), {str(tmp_path / 'dummy.pt')!r})"
    )
    run("-c", make)
    assert "NO" not in run("-m", "deploy", "check", str(recipe_file))
    assert "policy weights" in run("-m", "deploy", "plan", str(recipe_file))
    run("-m", "deploy", "local", str(recipe_file))
    lines = [json.loads(line) for line in (tmp_path / "dummy" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["loss"] != lines[1]["loss"]
    draw = (
        "import sys, torch; from common.config.load import load_recipe; from actors.evaluation.chunks import *; "
        "from common.models.loading import *; r = load_recipe(sys.argv[1]); cpu = torch.device('cpu'); "
        "models = EvaluationModels(r, load_tokenizer(r, cpu), None, cpu); "
        "print(GenerateChunk((0, 1), 0, 1.0).run(load_policy(r, cpu), models).pixels_NHWC.shape)"
    )
    assert run("-c", draw, str(recipe_file)) == "(2, 32, 32, 3)\n"


def test_its_own_check_refuses_a_recipe(checkout: Path, recipe_file: Path) -> None:
    words = ["-m", "deploy", "check", str(recipe_file), "policy.num_classes=101"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("policy.num_classes is above 100: a dummy knows no more\n")
