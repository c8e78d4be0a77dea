"""The device mesh, and how parameters and batches are laid over it.

One mesh of three axes serves every machine: ``data`` (whole copies of the model), ``fsdp``
(parameters split, gathered layer by layer) and ``tensor`` (heads, MLP and vocabulary split). Rows
of a batch go over ``data`` and ``fsdp`` together, so that splitting parameters splits work too.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrm.errors import MeshError

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# One logical axis may lie over no mesh axis (replicated), one, or several.
MeshAxes = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each mesh axis; at most one may be -1, which takes what the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """The mesh axes that each logical axis of a parameter is split over (None: replicated)."""

    layers: MeshAxes = None
    vocab: MeshAxes = "tensor"
    embed: MeshAxes = "fsdp"
    heads: MeshAxes = "tensor"
    kv_heads: MeshAxes = "tensor"
    head_dim: MeshAxes = None
    mlp: MeshAxes = "tensor"
    rank: MeshAxes = None
    head_hidden: MeshAxes = None
    outputs: MeshAxes = None


def start() -> None:
    """Join the other processes of a multi-host run, if the environment announces one.

    Announced by ``JAX_COORDINATOR_ADDRESS`` (with ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``
    where no cluster manager tells them), a TPU slice of several hosts, several slices, Slurm's srun
    or Open MPI. Call it before anything touches a device. A single process is left alone, because
    asking JAX to detect a cluster queries a metadata server that most machines do not have.
    """
    env = os.environ
    announced = (
        "JAX_COORDINATOR_ADDRESS" in env
        or "MEGASCALE_COORDINATOR_ADDRESS" in env
        or "," in env.get("TPU_WORKER_HOSTNAMES", "")
        or int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    )
    if announced and not jax.distributed.is_initialized():
        count, index = env.get("JAX_NUM_PROCESSES"), env.get("JAX_PROCESS_ID")
        jax.distributed.initialize(
            num_processes=None if count is None else int(count),
            process_id=None if index is None else int(index),
        )


def make_mesh(shape: MeshShape = MeshShape(), devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes ("data", "fsdp", "tensor") over all of `devices` (default: all).

    Raises MeshError for sizes that are none, or do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    asked = dataclasses.astuple(shape)
    wanted = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, asked, strict=True))
    if asked.count(-1) > 1 or not all(size >= 1 or size == -1 for size in asked):
        raise MeshError(
            f"a mesh of {wanted}: sizes must be 1 or more, and one of them may be -1, which takes "
            f"what the others leave of {_seen(devices)}"
        )
    fixed = math.prod(size for size in asked if size > 0)
    filled = tuple(len(devices) // fixed if size == -1 else size for size in asked)
    if math.prod(filled) != len(devices):
        must = "divide" if -1 in asked else "be"
        raise MeshError(
            f"a mesh of {wanted} does not fit {_seen(devices)}: the sizes, {fixed} together, must "
            f"{must} the number of devices. Leave out the --mesh options, which puts every device "
            f"on data; or start on {fixed} devices: for a trial a CPU stands in for them, with "
            f"JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES={fixed} before the command"
        )
    # Explicit sharding became make_mesh's default after 0.7.2; the model is written for Auto.
    return jax.make_mesh(filled, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check_rows(rows: int, mesh: Mesh) -> None:
    """Raise MeshError unless `rows` rows divide evenly over the mesh's batch axes."""
    ways = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    if rows % ways:
        sizes = " x ".join(f"{axis}={mesh.shape[axis]}" for axis in BATCH_AXES)
        next_rows = -(-rows // ways) * ways
        raise MeshError(
            f"{rows} rows do not divide over {ways} devices ({sizes}, of "
            f"{_seen(mesh.devices.flatten())}): give --rows as a multiple of {ways}, such as "
            f"{next_rows}, or sizes of data and fsdp whose product divides {rows}: what devices "
            "are left go to --mesh.tensor"
        )


def _seen(devices: Sequence[jax.Device]) -> str:
    """The devices by number, kind and, of few, name: what a user compares with what was meant."""
    names = ", ".join(map(str, devices[:8])) + (", ..." if len(devices) > 8 else "")
    plural = "" if len(devices) == 1 else "s"
    return f"the {len(devices)} {devices[0].platform} device{plural} that JAX sees ({names})"


def local_rows(rows: int, mesh: Mesh) -> list[int]:
    """Which of `rows` rows this process's devices hold: the same ones in every process of a tensor
    axis that runs over several."""
    places = rows_sharding(mesh).addressable_devices_indices_map((rows,))
    return sorted({row for (local,) in places.values() for row in range(rows)[local]})


@functools.cache
def _report_once(axis: str, size: int, mesh_axes: tuple[str, ...], ways: int) -> None:
    over = "+".join(mesh_axes)
    log.warning("axis %r of size %d does not divide over %s=%d: replicated", axis, size, over, ways)


def shard_spec(
    axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh, rules: ShardingRules
) -> PartitionSpec:
    """The partition of one array whose dimensions carry the logical names `axes`.

    A dimension that does not divide over its mesh axes is replicated, and a warning is logged once
    per process (one key-value head on two tensor devices is legitimate). A mesh axis that an
    earlier dimension took is not used again: an array can be split over it only once.
    """
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} logical axes {tuple(axes)} for an array of {tuple(shape)}")
    taken: set[str] = set()
    spec: list[MeshAxes] = []
    for axis, size in zip(axes, shape, strict=True):
        wanted = None if axis is None else getattr(rules, axis)
        mesh_axes = (wanted,) if isinstance(wanted, str) else tuple(wanted or ())
        mesh_axes = tuple(name for name in mesh_axes if name not in taken)
        ways = math.prod(mesh.shape[name] for name in mesh_axes)
        if size % ways:
            _report_once(axis, size, mesh_axes, ways)
            mesh_axes = ()
        taken.update(mesh_axes)
        spec.append(mesh_axes if len(mesh_axes) > 1 else mesh_axes[0] if mesh_axes else None)
    return PartitionSpec(*spec)


def shardings(axes: Any, shapes: Any, mesh: Mesh, rules: ShardingRules) -> Any:
    """The NamedSharding of every leaf of `shapes` (arrays or ShapeDtypeStructs).

    `axes` is a tree of the same structure whose leaves are tuples of logical axis names.
    """
    return jax.tree.map(
        lambda leaf, names: NamedSharding(mesh, shard_spec(names, leaf.shape, mesh, rules)),
        shapes,
        axes,
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Rows over the batch axes, after `leading` axes (accumulation) that are not split."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, BATCH_AXES))


def shard_rows(batch: Any, mesh: Mesh, leading: int = 0) -> Any:
    """Global arrays from this process's own rows (numpy arrays [*leading, local rows, ...]).

    A process's own rows are those that `local_rows` names; one process holds them all. Call
    check_rows first: rows that do not divide raise here too, but in JAX's words.
    """
    sharding = rows_sharding(mesh, leading)
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch
    )


def constrain_rows(tree: Any) -> Any:
    """Keep the first axis of every array over the batch axes and the others whole, inside jit.

    Written at the boundaries of layers, where activations are [rows, ...]: the compiler then splits
    only what lies between. Without a mesh in context (`jax.set_mesh`) nothing is done.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.tree.map(
        lambda leaf: jax.lax.with_sharding_constraint(leaf, PartitionSpec(BATCH_AXES)), tree
    )
