"""A safetensors file, written and hashed in one pass over the arrays, without a copy of them.

The package's own writer makes bytes of everything first, and a checkpoint of a large model is more than a machine
has to spare. The format: https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
}  # fmt: skip
_PIECE = 1 << 26  # bytes hashed and written at a time


def write_safetensors(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    bfloat16_names: Collection[str] = frozenset(),
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Write `arrays`; those of `bfloat16_names` are the int16 bits of such numbers. Returns the file's SHA-256.

    Raises OSError.
    """
    by_size = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each is aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in by_size:
        array, start = arrays[name], end
        end += array.nbytes
        kind = "BF16" if name in bfloat16_names else _NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = sha256()
    with path.open("wb") as file:
        parts = [memoryview(len(text).to_bytes(8, "little") + text), *(_bytes(arrays[name]) for name in by_size)]
        for part in parts:
            for start in range(0, len(part), _PIECE):
                piece = part[start : start + _PIECE]
                digest.update(piece)
                file.write(piece)
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
