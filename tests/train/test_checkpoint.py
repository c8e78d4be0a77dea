from __future__ import annotations

import json
import logging
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrm.errors import CheckpointError
from jaxrm.parallel import MeshShape, make_mesh
from jaxrm.train.best import Best, Leader
from jaxrm.train.checkpoint import MANIFEST, PROGRESS, Checkpoints, Progress

CUBE = make_mesh(MeshShape(2, 2, 2))
FLAT = make_mesh(MeshShape(1, 8, 1))
BEST = Best("accuracy", "max")


def state(value, mesh=CUBE):
    """A tree of every kind of leaf that a training state has."""
    split = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    whole = NamedSharding(mesh, PartitionSpec())
    return {
        "trainable": {"w": jax.device_put(jnp.full((8, 4), float(value)), split)},
        "optimizer": (jax.device_put(jnp.int32(value), whole), ()),
        "rng": jax.device_put(jax.random.key_data(jax.random.key(value)), whole),
        "step": jax.device_put(jnp.int32(value), whole),
    }


def abstract(mesh=CUBE):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        state(0, mesh),
    )


def restored_step(directory, mesh=CUBE):
    """Restore, check that the whole state is of one step, and say which."""
    with Checkpoints(directory) as checkpoints:
        progress = checkpoints.latest()
        if progress is None:
            return None
        same(checkpoints.restore(progress.step, abstract(mesh)), state(progress.step, mesh))
    return progress.step


def same(left, right):
    def compare(a, b):
        assert (a.dtype, a.sharding) == (b.dtype, b.sharding)
        np.testing.assert_array_equal(a, b)

    jax.tree.map(compare, left, right)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run that saved steps 2, 4, 6 and 8; copied by the tests that spoil it."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(directory, keep=3) as checkpoints:
        assert checkpoints.latest() is None
        for step in (2, 4, 6, 8):
            checkpoints.save(state(step), Progress(step))
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def steps(directory):
    return {int(path.name) for path in directory.iterdir() if path.name.isdigit()}


def flip(path):
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    path.write_bytes(content)


def largest(directory):
    files = [p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST]
    return max(files, key=lambda path: path.stat().st_size)


def test_the_newest_steps_are_kept_and_the_last_one_comes_back(saved):
    assert steps(saved) == {4, 6, 8}
    assert restored_step(saved) == 8


def test_another_mesh_restores_into_its_own_shards(saved):
    assert restored_step(saved, FLAT) == 8


def test_every_file_of_a_step_is_in_its_manifest(saved):
    files = {p.relative_to(saved / "8").as_posix() for p in (saved / "8").rglob("*") if p.is_file()}
    assert json.loads((saved / "8" / MANIFEST).read_text()).keys() == files - {MANIFEST}


def test_a_flipped_byte_falls_back_and_says_so(copy, caplog):
    spoiled = largest(copy / "8")
    flip(spoiled)
    with caplog.at_level(logging.WARNING, logger="jaxrm"):
        assert restored_step(copy) == 6
    assert f"checkpoint 8 is damaged ({spoiled.relative_to(copy / '8')} differs" in caplog.text


@pytest.mark.parametrize(
    "spoil", ["missing file", "manifest garbled", "no manifest", "no progress"]
)
def test_a_spoiled_step_is_skipped(copy, spoil):
    if spoil == "missing file":
        largest(copy / "8").unlink()
    elif spoil == "manifest garbled":
        (copy / "8" / MANIFEST).write_text('{"state')
    elif spoil == "no progress":
        hashes = json.loads((copy / "8" / MANIFEST).read_text())
        del hashes[PROGRESS]
        (copy / "8" / MANIFEST).write_text(json.dumps(hashes))
    else:
        (copy / "8" / MANIFEST).unlink()
    assert restored_step(copy) == 6


@pytest.mark.parametrize("committed", [True, False])
def test_a_skipped_step_can_be_saved_again(copy, committed):
    (copy / "8" / MANIFEST).unlink()
    if not committed:
        (copy / "8" / "commit_success.txt").unlink(missing_ok=True)
        shutil.copytree(copy / "8", copy / "8.orbax-checkpoint-tmp-1")
    flip(largest(copy / "6"))
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.latest().step == 4
        checkpoints.save(state(6), Progress(6))
        checkpoints.save(state(8), Progress(8))
    assert restored_step(copy) == 8
    flip(largest(copy / "8"))
    assert restored_step(copy) == 6


def test_only_damaged_steps_are_an_error_that_names_them_and_deletes_nothing(copy):
    for step in ("4", "6", "8"):
        flip(largest(copy / step))
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"step 8 is damaged .*step 4 is damaged"):
            restored_step(copy)


def test_a_first_save_that_was_interrupted_never_happened(copy):
    for step in ("4", "6"):
        shutil.rmtree(copy / step)
    (copy / "8" / MANIFEST).unlink()
    assert restored_step(copy) is None
    assert not (copy / "8").exists()


def test_arrays_may_be_donated_while_they_are_being_written(tmp_path):
    double = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), donate_argnums=0)
    sharding = NamedSharding(CUBE, PartitionSpec("fsdp", "tensor"))
    tree = {"w": jax.device_put(jnp.ones((1024, 1024)), sharding)}
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.latest()
        for step in range(3):
            checkpoints.save(tree, Progress(step))
            for _ in range(4):
                tree = double(tree)
    for step in (2, 1, 0):
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            assert checkpoints.latest().step == step
            found = checkpoints.restore(step, like)
        np.testing.assert_array_equal(found["w"], 2.0 ** (4 * step))
        shutil.rmtree(tmp_path / "checkpoints" / str(step))


def save(directory, step, leader, keep):
    with Checkpoints(directory, keep) as checkpoints:
        checkpoints.latest()
        checkpoints.save(state(step), Progress(step, BEST, Leader(leader, 0.1 + 0.2 * leader)))


def test_the_leader_of_every_step_among_the_newest_is_kept(tmp_path):
    kept = {1: {1}, 2: {1, 2}, 3: {1, 2, 3}, 4: {1, 3, 4}, 5: {4, 5}, 6: {4, 5, 6}}
    leaders = {1: 1, 2: 1, 3: 1, 4: 4, 5: 4, 6: 4}
    for step, leader in leaders.items():
        save(tmp_path, step, leader, keep=2)
        assert steps(tmp_path) == kept[step]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == Progress(6, BEST, Leader(4, 0.1 + 0.2 * 4))
        same(checkpoints.restore(4, abstract()), state(4))


def test_a_step_that_is_fallen_back_on_still_finds_its_leader(tmp_path):
    for step, leader in {1: 1, 2: 1, 3: 3}.items():
        save(tmp_path, step, leader, keep=2)
    flip(largest(tmp_path / "3"))
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert checkpoints.latest().leader.step == 1
        same(checkpoints.restore(1, abstract()), state(1))


@pytest.mark.parametrize("spoil", ["flipped byte", "missing"])
def test_a_damaged_leader_is_an_error_that_names_it_and_deletes_nothing(tmp_path, spoil):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, 1, keep=2)
    if spoil == "flipped byte":
        flip(largest(tmp_path / "1"))
    else:
        shutil.rmtree(tmp_path / "1")
    (tmp_path / "4" / MANIFEST).unlink()
    before = steps(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"checkpoint 1 .* is (damaged|missing)"):
                checkpoints.latest()
    assert steps(tmp_path) == before


def test_one_step_can_be_kept_but_not_none(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, step, keep=1)
    assert steps(tmp_path) == {2}
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Checkpoints(tmp_path, keep=0)


def test_nothing_is_restored_that_is_damaged(copy):
    flip(largest(copy / "4"))
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.latest().step == 8
        with pytest.raises(CheckpointError, match="checkpoint 4 .* differs from what was saved"):
            checkpoints.restore(4, abstract())
        with pytest.raises(CheckpointError, match="checkpoint 2 .* is missing"):
            checkpoints.restore(2, abstract())
