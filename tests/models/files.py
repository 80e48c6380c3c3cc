"""Writers of tiny files in the formats of the data sets."""

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IDX_NAMES = {
    "train-images-idx3-ubyte": (3, 40),
    "train-labels-idx1-ubyte": (1, 40),
    "t10k-images-idx3-ubyte": (3, 20),
    "t10k-labels-idx1-ubyte": (1, 20),
}


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The idx file of an array of unsigned bytes."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_idx_set(folder: Path, *, compressed: bool, side: int = 6) -> None:
    """Four files; every pixel of image i is i, its label i mod 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (n_dimensions, n) in IDX_NAMES.items():
        numbers = np.arange(n, dtype=np.uint8)
        array = (
            np.broadcast_to(numbers[:, None, None], (n, side, side))
            if n_dimensions == 3
            else numbers % 10
        )
        content = idx_bytes(np.ascontiguousarray(array))
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def cifar_record(labels: list[int], red: int, green: int, blue: int) -> bytes:
    """Label bytes and three constant planes of 32x32."""
    return bytes(labels) + bytes([red]) * 1024 + bytes([green]) * 1024 + bytes([blue]) * 1024
