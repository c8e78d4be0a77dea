"""Parameters from the safetensors of a model directory, straight onto the devices, and back.

Weights are transposed on the devices, which costs an accelerator next to nothing. Reading holds one
layer's tensor at a time beside the model, on the host as on the devices; writing gathers one tensor
at a time.
"""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding

from jaxrm.errors import ModelFileError
from jaxrm.huggingface import tensorfile
from jaxrm.huggingface.layout import Layout, Stored, Tensors, one_layer, read_json
from jaxrm.models.parameters import Parameter, Tree
from jaxrm.parallel import ShardingRules, replicated, shard_spec

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def open_directory(directory: Path) -> Tensors:
    """Every tensor of the directory's safetensors by name: one file, or several with an index.

    Raises:
      ModelFileError: there are none, they are in a pickle, the index names what is not there, or
        a file is not whole.
    """
    if (directory / SINGLE).exists():
        return tensorfile.read(directory / SINGLE)
    index = directory / INDEX
    if not index.exists():
        pickles = [p.name for p in directory.iterdir() if p.suffix in (".bin", ".pt", ".pth")]
        if pickles:
            raise ModelFileError(
                f"{directory} holds its weights in a pickle ({', '.join(sorted(pickles))}), which "
                "can run any code when it is read: save the model again as safetensors"
            )
        raise ModelFileError(f"{directory} holds no {SINGLE}, nor an index of several")
    weight_map = read_json(index).get("weight_map")
    named = isinstance(weight_map, dict) and all(isinstance(f, str) for f in weight_map.values())
    if not named:
        raise ModelFileError(f"{index}: weight_map is missing or does not map names to files")
    files = {name: tensorfile.read(directory / name) for name in sorted(set(weight_map.values()))}
    for name, file in weight_map.items():
        if name not in files[file]:
            raise ModelFileError(f"{index}: {file} should hold {name}, but does not")
    return collections.ChainMap(*files.values())


def read(
    tensors: Tensors,
    layout: Layout,
    dtype_of: Callable[[str], str],
    *,
    mesh: Mesh | None,
    rules: ShardingRules,
) -> Tree:
    """The parameters that the layout names, as nested dicts.

    Args:
      tensors: as `layout.check_tensors` found them right.
      dtype_of: what a parameter, by path, becomes.
      mesh, rules: where it goes; each device reads its own part of the files.
    """
    leaves = {
        path: _read(tensors, stored, parameter, dtype_of(path), mesh, rules)
        for path, (stored, parameter) in layout.items()
    }
    return traverse_util.unflatten_dict(leaves, sep="/")


def _read(
    tensors: Tensors,
    stored: Stored,
    parameter: Parameter,
    dtype: str,
    mesh: Mesh | None,
    rules: ShardingRules,
) -> jax.Array:
    """One parameter, whose layers are put on the devices one by one."""
    one = one_layer(parameter)
    shape = tuple(one.shape[axis] for axis in stored.order)
    target, put = None, jax.device_put
    if mesh is not None:
        target = NamedSharding(mesh, shard_spec(parameter.axes, parameter.shape, mesh, rules))
        axes = tuple(one.axes[axis] for axis in stored.order)
        source = NamedSharding(mesh, shard_spec(axes, shape, mesh, rules))

        def put(tensor: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(
                shape, source, lambda index: np.ascontiguousarray(tensor[index])
            )

    inverse = tuple(stored.order.index(axis) for axis in range(len(shape)))
    pieces = (
        _transpose(put(tensors[name].reshape(shape)), inverse) for name in stored.names(parameter)
    )
    if one is parameter:
        return _own(next(pieces), dtype, target)
    stack = jnp.zeros(parameter.shape, dtype, device=target)
    for layer, piece in enumerate(pieces):
        # While this piece is read the one before is placed, but no more than these two exist.
        jax.block_until_ready(stack)
        stack = _place(stack, piece, layer, target)
    return stack


def _transpose(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    return x if order == tuple(range(x.ndim)) else _reordered(x, order)


@functools.partial(jax.jit, static_argnums=1)
def _reordered(x: jax.Array, order: tuple[int, ...]) -> jax.Array:
    """By itself, because on a CPU XLA runs it several times slower fused with its neighbours."""
    return x.transpose(order)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _own(x: jax.Array, dtype: str, target: NamedSharding | None) -> jax.Array:
    """A copy: JAX may have taken over the memory map itself."""
    copy = jnp.array(x, dtype, copy=True)
    return copy if target is None else jax.lax.with_sharding_constraint(copy, target)


@functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
def _place(
    stack: jax.Array, piece: jax.Array, layer: int, target: NamedSharding | None
) -> jax.Array:
    """The stack with one layer replaced, in its own memory."""
    dtype = stack.dtype
    # As bits, because on a CPU XLA moves bfloat16 several times slower.
    bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=f"uint{8 * dtype.itemsize}")
    placed = jax.lax.dynamic_update_index_in_dim(bits(stack), bits(piece.astype(dtype)), layer, 0)
    stack = jax.lax.bitcast_convert_type(placed, dtype)
    return stack if target is None else jax.lax.with_sharding_constraint(stack, target)


class _Tensor(NamedTuple):
    """One tensor to be written: a layer (None: all) of the parameter at `path`, axes in `order`."""

    path: str
    layer: int | None
    order: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """In bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Shard(NamedTuple):
    """A file to be written: its name, and its tensors by name, in order."""

    file: str
    tensors: dict[str, _Tensor]


def plan(layout: Layout, dtype_of: Callable[[str], str], shard_bytes: int) -> list[Shard]:
    """The files that hold what the layout names, each of at most `shard_bytes` or one tensor."""
    tensors: dict[str, _Tensor] = {}
    for path, (stored, parameter) in layout.items():
        stacked, dtype = parameter.axes[0] == "layers", jnp.dtype(dtype_of(path))
        for i, name in enumerate(stored.names(parameter)):
            layer = i if stacked else None
            tensors[name] = _Tensor(path, layer, stored.order, stored.shape(parameter), dtype)
    groups: list[dict[str, _Tensor]] = [{}]
    filled = 0
    # Wider types first, which keeps every tensor of a file aligned.
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        if groups[-1] and filled + tensor.size > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += tensor.size
    if len(groups) == 1:
        return [Shard(SINGLE, groups[0])]
    many = len(groups)
    return [Shard(f"model-{i + 1:05}-of-{many:05}.safetensors", g) for i, g in enumerate(groups)]


def gather(params: Tree, shard: Shard) -> Iterator[np.ndarray]:
    """A shard's tensors one by one, each made whole from the devices that share it.

    Gathering is collective: in a run of several processes each must go through them.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for tensor in shard.tensors.values():
        values = flat[tensor.path]
        sharded = isinstance(values.sharding, NamedSharding)
        everywhere = replicated(values.sharding.mesh) if sharded else None
        one = values if tensor.layer is None else _take(values, tensor.layer)
        in_order = _transpose(one, tensor.order)
        yield np.asarray(_whole(in_order, tensor.shape, tensor.dtype, everywhere))


@jax.jit
def _take(stack: jax.Array, layer: int) -> jax.Array:
    return stack[layer]


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _whole(
    values: jax.Array, shape: tuple[int, ...], dtype: np.dtype, everywhere: NamedSharding | None
) -> jax.Array:
    values = values.reshape(shape).astype(dtype)
    if everywhere is None:
        return values
    return jax.lax.with_sharding_constraint(values, everywhere)


def write(directory: Path, params: Tree, shards: list[Shard], *, beside_others: bool) -> None:
    """Writes the files, and where there are several safetensors files an index of these.

    Args:
      beside_others: the directory holds others that are not the model's weights. A server such as
        vLLM reads whatever lies there unless an index says which.
    """
    for shard in shards:
        write_shard(directory, shard, gather(params, shard))
    if len(shards) > 1 or beside_others:
        (directory / INDEX).write_text(json.dumps(index(shards), indent=2) + "\n")


def write_shard(directory: Path, shard: Shard, arrays: Iterable[np.ndarray]) -> None:
    """Writes one file, whose tensors come in its order."""
    kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in shard.tensors.items()}
    tensorfile.write(directory / shard.file, kinds, arrays)


def index(shards: list[Shard]) -> dict[str, Any]:
    """What `INDEX` says of several files."""
    return {
        "metadata": {"total_size": sum(t.size for s in shards for t in s.tensors.values())},
        "weight_map": {name: shard.file for shard in shards for name in shard.tensors},
    }
