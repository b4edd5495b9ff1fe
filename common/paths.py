"""Where files are looked for."""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def resolve(path: str | Path) -> Path:
    """`path` itself where absolute, otherwise inside this process's checkout.

    An actor on another node runs an unpacked copy of the checkout in a folder of its own, so a relative
    path of a recipe means the same file there as it does beside the driver.
    """
    path = Path(path).expanduser()
    return path if path.is_absolute() else CHECKOUT / path


def find_run(run: str) -> Path | None:
    """The run folder that `run` names: a path, or a name in runs/; None where there is none."""
    for folder in (Path(run).expanduser().absolute(), resolve(run), CHECKOUT / "runs" / run):
        if (folder / "recipe.json").is_file():
            return folder
    return None
