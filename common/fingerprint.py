"""A digest of the code, to see that driver and actors run the same."""

from functools import cache
from hashlib import sha256

from common.paths import CHECKOUT


@cache
def code_fingerprint() -> str:
    """12 hex digits over the names and contents of this checkout's Python files."""
    digest = sha256()
    for room in ("actors", "common", "learner"):
        for path in sorted((CHECKOUT / room).rglob("*.py")):
            digest.update(f"{path.relative_to(CHECKOUT)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
