"""What `ray job submit --working-dir .` sends to the cluster, packed by Ray itself."""

import zipfile
from pathlib import Path

import pytest
import yaml

from common.paths import CHECKOUT

RAY_LIMIT_BYTES = 104857600
LARGEST_BYTES = 32 << 20
NEEDED = {
    "deploy/__main__.py",
    "deploy/recipes/emoji.yaml",
    "deploy/recipes/emoji/atlas.webp",
    "deploy/recipes/emoji/classifier.safetensors",
    "deploy/recipes/emoji/index.json",
    "deploy/recipes/emoji/policy.safetensors",
    "deploy/recipes/emoji/tokenizer.safetensors",
    "deploy/recipes/mnist.yaml",
    "deploy/recipes/mnist/classifier.safetensors",
    "deploy/recipes/mnist/policy.safetensors",
    "deploy/recipes/mnist/tokenizer.safetensors",
    "deploy/recipes/tiny/captioned/shard-00000.parquet",
    "deploy/recipes/tiny/classes.txt",
    "deploy/recipes/tiny/clip/ViT-tiny.pt",
    "deploy/recipes/tiny/llamagen_vq_tiny.pt",
    "deploy/recipes/tiny/pictures/circle/00.png",
    "deploy/recipes/tiny/t5/model.safetensors",
    "actors/rollout_actor.py",
    "common/config/recipe.py",
    "learner/learner_actor.py",
}
LEFT_OUT = {"tests", "docs", "benchmarks", "runs", "data", "checkpoints", ".git", ".venv", "build"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    path = tmp_path_factory.mktemp("package") / "package.zip"
    create_package(
        str(CHECKOUT),
        path,
        include_gitignore=True,
        include_parent_dir=False,
        excludes=get_runtime_env_default_excludes(),
    )
    return path


def test_the_package_is_small(package: Path) -> None:
    assert package.stat().st_size < LARGEST_BYTES < RAY_LIMIT_BYTES


def test_the_package_holds_the_code_and_the_demo_and_nothing_for_developers(package: Path) -> None:
    names = set(zipfile.ZipFile(package).namelist())
    assert names >= NEEDED
    assert {name.partition("/")[0] for name in names} & LEFT_OUT == set()


def test_weights_and_images_beside_the_code_are_not_sent(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    for name in ("checkpoints/policy.pt", "data/train/0.png", "runs/mnist/events.jsonl", "common/checkpoints.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / ".rayignore").write_text((CHECKOUT / ".rayignore").read_text())
    create_package(
        str(tmp_path), tmp_path / "package.zip", include_gitignore=True, include_parent_dir=False, excludes=[]
    )
    files = {name for name in zipfile.ZipFile(tmp_path / "package.zip").namelist() if not name.endswith("/")}
    assert files - {".rayignore", "package.zip"} == {"common/checkpoints.py"}


def test_ray_takes_the_runtime_environment_and_gives_a_run_time_to_write_its_checkpoint() -> None:
    from ray.runtime_env import RuntimeEnv

    tree = yaml.safe_load((CHECKOUT / "deploy/ray/runtime_env.yaml").read_text())
    environment = RuntimeEnv(**tree)["env_vars"]
    assert int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) >= 300
    assert environment["RAY_AUTH_MODE"] == "token"
    assert set(tree) == {"env_vars"}  # no packages: their versions stand in pyproject.toml
