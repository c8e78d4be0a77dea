from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxrm import parallel
from jaxrm.errors import MeshError
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh, shard_spec


@pytest.fixture(scope="module")
def cube():
    return make_mesh(MeshShape(2, 2, 2))


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (MeshShape(), (8, 1, 1)),
        (MeshShape(2, 2, 2), (2, 2, 2)),
        (MeshShape(1, -1, 4), (1, 2, 4)),
        (MeshShape(2, 2, -1), (2, 2, 2)),
    ],
)
def test_a_mesh_has_three_auto_axes_and_fills_in_the_missing_size(shape, sizes):
    mesh = make_mesh(shape)
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), sizes, strict=True))
    assert mesh.axis_types == (AxisType.Auto,) * 3


@pytest.mark.parametrize(
    "shape",
    [
        MeshShape(-1, -1, 1),
        MeshShape(3, 1, 1),
        MeshShape(2, 2, 1),
        MeshShape(-1, 3, 1),
        MeshShape(-1, 16, 1),
        MeshShape(0, -1, 1),
        MeshShape(-2, -2, 2),
    ],
)
def test_a_mesh_that_does_not_fit_names_the_devices_and_the_axes(shape):
    with pytest.raises(MeshError, match=rf"data={shape.data}, fsdp={shape.fsdp}.* 8 cpu devices"):
        make_mesh(shape)


@pytest.mark.parametrize(("shape", "must"), [(MeshShape(fsdp=2), "divide"), (MeshShape(2), "be")])
def test_a_mesh_for_more_devices_than_there_are_names_both_cures(shape, must):
    device = jax.devices()[0]
    with pytest.raises(MeshError) as caught:
        make_mesh(shape, [device])
    for words in (f"1 cpu device that JAX sees ({device})", "2 together", f"must {must} the num",
                  "Leave out the --mesh options", "JAX_NUM_CPU_DEVICES=2"):  # fmt: skip
        assert words in str(caught.value)


def test_the_cure_for_a_trial_on_a_cpu_works():
    said = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.device_count())"],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == "2"


def test_rows_must_divide_over_the_batch_axes(cube):
    parallel.check_rows(8, cube)
    with pytest.raises(MeshError, match=r"6 rows .* 4 devices .*data=2 x fsdp=2.* multiple.* 8,"):
        parallel.check_rows(6, cube)


def test_every_process_loads_the_rows_that_its_devices_hold():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    announced = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.rows_of_process"],
            cwd=Path(__file__).parents[1],
            env={**os.environ, **announced, "JAX_PLATFORMS": "cpu", "JAX_PROCESS_ID": str(index)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    answers = [process.communicate(timeout=120)[0] for process in processes]
    first, second = ([set(rows) for rows in json.loads(answer)] for answer in answers)
    *split, (ours, theirs) = zip(first, second, strict=True)
    for ours_of_split, theirs_of_split in split:
        assert len(ours_of_split) == len(theirs_of_split) == 4
        assert ours_of_split | theirs_of_split == set(range(8))
    assert ours == theirs == set(range(8)), "a tensor axis over both needs the same rows in both"


def test_logical_axes_become_mesh_axes(cube):
    rules = ShardingRules()
    spec = shard_spec(("layers", "embed", "heads", "head_dim"), (3, 8, 4, 5), cube, rules)
    assert spec == PartitionSpec(None, "fsdp", "tensor", None)
    both = ShardingRules(embed=("fsdp", "tensor"))
    assert shard_spec(("embed",), (8,), cube, both) == PartitionSpec(("fsdp", "tensor"))


def test_a_mesh_axis_is_used_once_per_array(cube):
    rules = ShardingRules(vocab="tensor", embed="tensor")
    assert shard_spec(("vocab", "embed"), (4, 4), cube, rules) == PartitionSpec("tensor", None)


def test_an_axis_that_does_not_divide_is_replicated_and_reported_once(cube, caplog):
    rules = ShardingRules()
    with caplog.at_level(logging.WARNING, logger="jaxrm.parallel"):
        for _ in range(2):
            spec = shard_spec(("embed", "kv_heads"), (8, 7), cube, rules)
    assert spec == PartitionSpec("fsdp", None)
    assert [record.getMessage() for record in caplog.records].count(
        "axis 'kv_heads' of size 7 does not divide over tensor=2: replicated"
    ) == 1


def test_a_declaration_of_another_rank_is_a_programming_error(cube):
    with pytest.raises(ValueError, match="2 logical axes"):
        shard_spec(("embed", "mlp"), (8,), cube, ShardingRules())


def test_shardings_follow_the_trees_structure(cube):
    shapes = {"a": jax.ShapeDtypeStruct((4, 6), jnp.float32), "b": {"c": jnp.zeros(())}}
    tree = parallel.shardings(
        {"a": ("embed", "mlp"), "b": {"c": ()}}, shapes, cube, ShardingRules()
    )
    assert tree["a"].spec == PartitionSpec("fsdp", "tensor")
    assert tree["b"]["c"].spec == PartitionSpec()


def test_rows_are_placed_in_order_and_leading_axes_stay_whole(cube):
    values = np.arange(3 * 8 * 2).reshape(3, 8, 2)
    placed = parallel.shard_rows({"x": values, "absent": None}, cube, leading=1)
    np.testing.assert_array_equal(placed["x"], values)
    assert placed["x"].sharding.spec == PartitionSpec(None, ("data", "fsdp"))
    assert {shard.data.shape for shard in placed["x"].addressable_shards} == {(3, 2, 2)}
    assert placed["absent"] is None


def test_constraining_rows_splits_them_only_where_a_mesh_is_in_context(cube):
    double = jax.jit(lambda x: parallel.constrain_rows({"x": x * 2})["x"])
    x = jnp.arange(16.0).reshape(8, 2)
    with jax.set_mesh(cube):
        split = double(x)
    assert split.sharding.spec[0] == ("data", "fsdp")
    np.testing.assert_array_equal(split, 2 * x)
    assert parallel.constrain_rows(x) is x


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, None),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, (None, None)),
        ({"SLURM_STEP_NUM_TASKS": "4"}, (None, None)),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "0",
            },
            (2, 0),
        ),
    ],
)
def test_processes_join_only_where_the_environment_announces_several(
    environment, arguments, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        jax.distributed,
        "initialize",
        lambda num_processes, process_id: calls.append((num_processes, process_id)),
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parallel.start()
    assert calls == ([] if arguments is None else [arguments])
