"""Text to image, as a user runs it: tars with captions, training, sampling with guidance, GenEval folders."""

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
JANUS = CHECKOUT / "tests" / "data" / "janus"


def deploy(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "deploy", *words], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_tars(folder: Path, side: int) -> None:
    draws = np.random.default_rng(0)
    samples = []
    for number in range(12):
        file = io.BytesIO()
        Image.fromarray(draws.integers(256, size=(side, side + 16, 3), dtype=np.uint8)).save(file, "png")
        caption = " ".join(draws.choice(WORDS, size=4))
        samples.append({f"{number:03d}.png": file.getvalue(), f"{number:03d}.txt": caption.encode()})
    folder.mkdir()
    write_tar(folder / "00000.tar", samples)


@pytest.mark.parametrize(
    ("name", "side", "option"),
    [
        pytest.param("llamagen_xl_t2i_tiny", 64, "--text-encoder", marks=pytest.mark.chaos),
        ("janus_pro_1b_t2i_tiny", 32, "--prompts"),
    ],
)
def test_from_captioned_tars_to_geneval_folders(name: str, side: int, option: str, tmp_path: Path) -> None:
    recipe = f"deploy/recipes/{name}.yaml"
    make_tars(tmp_path / "tars", side)
    is_llamagen = option == "--text-encoder"
    encoder = make_t5(tmp_path / "t5", width=24) if is_llamagen else JANUS / "hf" / "tokenizer.json"
    shards = str(tmp_path / "shards")
    options = ["--image-size", str(side), option, str(encoder), "--workers", "0"]
    assert "12 pictures" in deploy("prepare", str(tmp_path / "tars"), shards, *options)

    changes = [f"source.path={shards}", f"run.dir={tmp_path}", "ray.object_store_bytes=80000000"]
    assert "succeeded after 3 steps on 24 images" in deploy("train", recipe, *changes)
    run = tmp_path / name.replace("_", "-")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3

    prompts = [{"tag": "single_object", "prompt": "a red photo"}, {"tag": "colors", "prompt": "green grass"}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    out = tmp_path / "geneval"
    sampling = ["--checkpoint", str(run / "checkpoints" / "step-000003"), "--out", str(out)]
    sampling += ["--prompts", str(tmp_path / "prompts.jsonl")]
    sampling += ["--text-encoder", str(encoder)] if is_llamagen else []  # Janus' is in the recipe
    deploy("sample", recipe, *changes, *sampling, "--layout", "geneval", "--per-prompt", "2")
    for index, line in enumerate(prompts):
        folder = out / f"{index:05d}"
        assert json.loads((folder / "metadata.jsonl").read_text()) == line
        pictures = sorted(path.name for path in (folder / "samples").iterdir())
        assert pictures == ["00000.png", "00001.png"]
        assert Image.open(folder / "samples" / "00000.png").size == (side, side)


def test_janus_learns_the_same_in_the_service_as_in_one_process(tmp_path: Path) -> None:
    recipe = "deploy/recipes/janus_pro_1b_t2i_tiny.yaml"
    changes = ["buffer.max_staleness=0", "learner.lr=0.001", "learner.num_ranks=1", "compute.num_threads=1"]
    changes += ["ray.object_store_bytes=80000000"]
    for command in ("local", "train"):
        deploy(command, recipe, *changes, f"run.dir={tmp_path / command}")
    folders = [tmp_path / command / "janus-pro-1b-t2i-tiny" for command in ("local", "train")]
    local, service = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders
    )
    assert len(local) == 3
    for ours, theirs in zip(local, service, strict=True):
        for key in ("loss", "policy_loss", "ce_prior", "reward_mean", "grad_norm"):
            assert ours[key] == pytest.approx(theirs[key], rel=0, abs=1e-6), key
    digests = [json.loads((folder / "summary.json").read_text())["weights_sha256"] for folder in folders]
    assert digests[0] == digests[1]
