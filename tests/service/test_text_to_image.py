"""Text to image, as a user runs it: tars with captions, T5 features, training, sampling with guidance, GenEval."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.deploy.prepare.conftest import WORDS, make_t5, write_tar

pytestmark = pytest.mark.ray

CHECKOUT = Path(__file__).parents[2]
RECIPE = "deploy/recipes/llamagen_xl_t2i_tiny.yaml"


def deploy(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "deploy", *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_captioned_tars_to_geneval_folders(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    samples = []
    for number in range(12):
        file = io.BytesIO()
        Image.fromarray(draws.integers(256, size=(64, 80, 3), dtype=np.uint8)).save(file, "png")
        caption = " ".join(draws.choice(WORDS, size=4))
        samples.append({f"{number:03d}.png": file.getvalue(), f"{number:03d}.txt": caption.encode()})
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "00000.tar", samples)
    t5 = make_t5(tmp_path / "t5", width=24)
    shards = str(tmp_path / "shards")
    options = ["--image-size", "64", "--text-encoder", str(t5), "--workers", "0"]
    assert "12 pictures" in deploy("prepare", str(tmp_path / "tars"), shards, *options)

    changes = [f"source.path={shards}", f"run.dir={tmp_path}", "ray.object_store_bytes=80000000"]
    assert "succeeded after 3 steps on 24 images" in deploy("train", RECIPE, *changes)
    run = tmp_path / "llamagen-xl-t2i-tiny"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3

    prompts = [{"tag": "single_object", "prompt": "a red photo"}, {"tag": "colors", "prompt": "green grass"}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    out = tmp_path / "geneval"
    sampling = ["--checkpoint", str(run / "checkpoints" / "step-000003"), "--out", str(out)]
    sampling += ["--prompts", str(tmp_path / "prompts.jsonl"), "--text-encoder", str(t5)]
    deploy("sample", RECIPE, *changes, *sampling, "--layout", "geneval", "--per-prompt", "2")
    for index, line in enumerate(prompts):
        folder = out / f"{index:05d}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == line
        pictures = sorted(path.name for path in (folder / "samples").iterdir())
        assert pictures == ["00000.png", "00001.png"]
        assert Image.open(folder / "samples" / "00000.png").size == (64, 64)
