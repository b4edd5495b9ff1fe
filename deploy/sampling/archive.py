"""All pictures in one `.npz`, as the evaluators of the ADM protocol read them; one picture in memory at a time.

Letters: N pictures, H and W pixels.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from common.atomic import replacing


def write_npz(path: Path, pictures: Sequence[Path], label_N: np.ndarray | None) -> None:
    """Write `arr_0` uint8 [N, H, W, 3] of PNG files, and `labels` int64 [N] where there are."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with _member(archive, "arr_0") as file:
            H, W, C = _read(pictures[0]).shape
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(pictures), H, W, C)}
            np.lib.format.write_array_header_1_0(file, header)
            for picture in pictures:
                pixels_HWC = _read(picture)
                assert pixels_HWC.shape == (H, W, C), f"{picture} is of another size than {pictures[0]}"
                file.write(pixels_HWC.tobytes())
        if label_N is not None:
            with _member(archive, "labels") as file:
                np.lib.format.write_array(file, label_N)


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A ZipInfo bears no time of its own: equal pictures make equal archives. They may exceed 4 GB."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)
