"""This checkout: where relative paths lead, and a fingerprint of its code."""

from functools import cache
from hashlib import sha256
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def resolve(path: str | Path) -> Path:
    """`path` itself if absolute, otherwise inside this process's checkout.

    An actor on another node runs an unpacked copy of the checkout in its own folder, so a relative path in a
    recipe means the same file there and at the driver.
    """
    path = Path(path).expanduser()
    return path if path.is_absolute() else CHECKOUT / path


def places_text(run: str) -> str:
    """Where `find_run` looks, in words."""
    return run if "/" in run else f"{run} or runs/{run}"


def find_run(run: str, mark: str = "recipe.json") -> Path | None:
    """The run folder that `run` names: a path, or a name in runs/; None if there is none with the file `mark`."""
    for folder in (Path(run).expanduser().absolute(), resolve(run), CHECKOUT / "runs" / run):
        if (folder / mark).is_file():
            return folder
    return None


@cache
def code_fingerprint() -> str:
    """12 hex digits over the names and contents of this checkout's Python files, to compare driver and actors."""
    digest = sha256()
    for room in ("actors", "common", "learner"):
        for path in sorted((CHECKOUT / room).rglob("*.py")):
            digest.update(f"{path.relative_to(CHECKOUT)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
