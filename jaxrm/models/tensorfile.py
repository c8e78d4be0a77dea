"""Safetensors files: read through a memory map, written as a stream.

A file is an 8-byte header length, a JSON header and the tensors' bytes
(https://huggingface.co/docs/safetensors). Reading yields views of the map, so that a process
touches only the bytes that its own devices need; writing holds one tensor in memory at a time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
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


def read(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of the file by name, as a read-only view of a memory map.

    Raises:
      ModelFileError: the file is truncated or malformed, or a tensor is of a type other than
        floating point of 16 to 64 bits.
    """
    try:
        content = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    length = int.from_bytes(content[:8].tobytes(), "little")
    if len(content) < 8 or length > len(content) - 8:
        raise _broken(path, "it ends within its header")
    try:
        header = json.loads(content[8 : 8 + length].tobytes())
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        data = content[8 + length :]
        return {name: _tensor(path, name, entry, data) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(path, f"its header makes no sense ({error!r})") from error


def _tensor(path: Path, name: str, entry: Mapping[str, Any], data: np.ndarray) -> np.ndarray:
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in DTYPES:
        raise ModelFileError(
            f"{path}: tensor {name} is of type {dtype}, but only {', '.join(DTYPES)} can be read: "
            "convert a quantised model to bfloat16 first"
        )
    if not 0 <= start <= stop <= len(data):
        raise _broken(path, f"it ends within or before tensor {name}")
    if stop - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _broken(path, f"{stop - start} bytes are not a {dtype} tensor {name} {shape}")
    return data[start:stop].view(DTYPES[dtype]).reshape(shape)


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
