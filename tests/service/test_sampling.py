"""`sample` through Ray: equal files for any number of actors, and those of a draw in this process."""

import json
from pathlib import Path

import pytest

from common.atomic import write_json
from deploy.__main__ import main
from deploy.sampling.options import SampleOptions
from deploy.sampling.sample import sample
from tests.deploy.sampling.conftest import InProcess

pytestmark = pytest.mark.ray


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "events.jsonl"}


def test_two_actors_write_the_files_of_a_draw_in_process(small_run, tmp_path, capsys, no_ray):
    recipe = small_run("draw", {"sampling.batch_size": 8, "sampling.guidance_scale": 1.5})
    sample(recipe, SampleOptions(tmp_path / "own", num=64, seed=3), InProcess())
    path = tmp_path / "recipe.json"
    write_json(path, recipe.model_dump(mode="json"))
    out = tmp_path / "actors"
    argv = ["sample", str(path), "--num", "64", "--seed", "3", "--out", str(out), "actors.count=2"]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.out == f"wrote {out / 'grid.png'}\n"
    assert "picture 64/64" in printed.err
    joined = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in joined] == ["actor_joined"] * 2
    assert files(out) == files(tmp_path / "own")


@pytest.mark.chaos
def test_a_checkpoint_is_drawn_from_instead_of_the_recipes_policy(small_run, tmp_path, tiny_weights, no_ray):
    from safetensors.torch import load_file

    from common.models.weights_files import save_weights

    weights = load_file(tiny_weights / "policy.safetensors")
    checkpoint = tmp_path / "step-000002"
    save_weights({name: 2 * value for name, value in weights.items()}, checkpoint / "policy.safetensors")
    recipe = small_run("draw", {"policy.checkpoint": "gone.pt"})
    sample(recipe, SampleOptions(tmp_path / "trained", num=2, checkpoint=str(checkpoint)))
    sample(small_run("draw"), SampleOptions(tmp_path / "base", num=2), InProcess())
    trained, base = files(tmp_path / "trained"), files(tmp_path / "base")
    assert trained.keys() == base.keys()
    assert trained["000000.png"] != base["000000.png"]
