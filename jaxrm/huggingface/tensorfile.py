"""Safetensors files: read through a memory map, written as a stream.

A file is an 8-byte header length, a JSON header and the tensors' bytes
(https://huggingface.co/docs/safetensors). Reading maps one tensor at a time, so that a process
touches only the bytes that its own devices need; writing holds one tensor in memory at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrm.errors import ModelFileError

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
}


class TensorFile(Mapping[str, np.ndarray]):
    """The tensors of a file by name, each a read-only memory map of its own.

    A tensor is mapped when it is asked for and let go with the last reference to it, so that no
    more of the file is resident than is in use.
    """

    def __init__(self, path: Path, entries: Mapping[str, tuple[np.dtype, tuple[int, ...], int]]):
        self._path, self._entries = path, entries

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, offset = self._entries[name]
        if not math.prod(shape):  # nothing cannot be mapped
            return np.zeros(shape, dtype)
        content = np.memmap(self._path, np.uint8, "r", offset, math.prod(shape) * dtype.itemsize)
        return content.view(dtype).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def read(path: Path) -> TensorFile:
    """Opens a file, and checks that it is whole.

    Raises:
      ModelFileError: the file is truncated or malformed, or a tensor is of a type other than
        floating point of 16 to 64 bits.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise _broken(path, "it ends within its header")
            text = file.read(length)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        start = 8 + length
        entries = {n: _entry(path, n, entry, start, size) for n, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"its header makes no sense ({error!r})") from error
    return TensorFile(path, entries)


def _entry(
    path: Path, name: str, entry: Mapping[str, Any], data: int, size: int
) -> tuple[np.dtype, tuple[int, ...], int]:
    """(dtype, shape, offset in the file); tensors begin at `data`."""
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in DTYPES:
        raise ModelFileError(
            f"{path}: tensor {name} is of type {dtype}, but only {', '.join(DTYPES)} can be read: "
            "convert a quantised model to bfloat16 first"
        )
    if not 0 <= start <= stop <= size - data:
        raise _broken(path, f"it ends within or before tensor {name}")
    if stop - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _broken(path, f"{stop - start} bytes are not a {dtype} tensor {name} {shape}")
    return DTYPES[dtype], shape, data + start


def _broken(path: Path, problem: str) -> ModelFileError:
    return ModelFileError(f"{path}: not a whole safetensors file, {problem}: copy it again")


def write(
    path: Path,
    layout: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    arrays: Iterable[np.ndarray],
) -> None:
    """Writes `arrays`, which come in the order of `layout` (name -> dtype and shape).

    Put wider types first: readers expect every tensor aligned to its own item size.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape) in layout.items():
        size = math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": codes[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (dtype, shape), array in zip(layout.values(), arrays, strict=True):
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{array.dtype} {array.shape} where {dtype} {shape} was laid out")
            file.write(np.ascontiguousarray(array).view(np.uint8).data)
