"""The loader's order, its resumption, and how it fails."""

import jax
import numpy as np
import pytest

from jaxrm import parallel
from jaxrm.data import planning
from jaxrm.data.loader import Loader, prefetch
from jaxrm.data.store import TreeStore, with_columns
from jaxrm.errors import DataError, MeshError
from tests.data.test_packing import tree


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(0)
    return [tree(*rng.integers(1, 9, 3), ranks=(0, 1)) for _ in range(50)]


def loader(trees, mesh, **options):
    shape = planning.fit_shape(trees, rows=2, length=40, ask="best")
    return Loader(trees, shape, mesh=mesh, **{"seed": 0, **options})


def take(batches, count):
    taken = [jax.device_get(next(batches)) for _ in range(count)]
    batches.close()
    return taken


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_an_epoch_holds_every_response_once(trees, mesh):
    made = loader(trees, mesh)
    batches = take(made.batches(0), made.steps(1))
    seen = np.concatenate([b.response_index[b.response_mask] for b in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(100))


def test_starting_late_gives_what_an_uninterrupted_reader_sees(trees, mesh):
    per_epoch = loader(trees, mesh).steps(1)
    whole = take(loader(trees, mesh).batches(0), 2 * per_epoch + 1)
    for start in (1, per_epoch - 1, per_epoch, 2 * per_epoch):
        later = take(loader(trees, mesh).batches(start), 1)
        assert equal(later[0], whole[start])
    assert not equal(whole[0], whole[per_epoch])


def test_starting_late_is_the_same_with_weights_and_prompts(trees, mesh):
    options = {"accumulate": 2, "weights": np.tile([0.7, 1.5], 25), "prompts": np.arange(50) // 3}
    whole = loader(trees, mesh, **options)
    per_epoch, two = whole.steps(1), whole.steps(2)
    uninterrupted = take(whole.batches(0), two + 1)
    for start in (1, per_epoch - 1, per_epoch, two):
        assert equal(
            take(loader(trees, mesh, **options).batches(start), 1)[0], uninterrupted[start]
        )
    shown = np.concatenate([b.response_index[b.response_mask] for b in uninterrupted[:per_epoch]])
    assert len(shown) == 2 * 55  # both responses to 25 * 0.7 + 25 * 1.5 trees


def test_the_comparisons_of_a_prompt_make_one_step(trees, mesh):
    prompts = np.arange(50) % 17
    made = loader(trees, mesh, accumulate=2, prompts=prompts)
    batches = take(made.batches(0), made.steps(1))
    met = [set(prompts[b.response_index[b.response_mask] // 2].tolist()) for b in batches]
    assert len(met) > 2
    assert sum(map(len, met)) == 17


def test_a_prompt_that_could_outgrow_a_step_is_refused_before_the_first(mesh):
    alike = [tree(10, 5, 5, ranks=(0, 1)) for _ in range(3)]
    options = {"prompts": np.zeros(3, np.int64)}
    assert loader(alike, mesh, **options, weights=np.ones(3)).steps(1) == 1  # 3 trees, 2 a row
    with pytest.raises(DataError, match="6 comparisons of one prompt .* need 3 rows"):
        loader(alike, mesh, **options, weights=np.full(3, 1.01))
    with pytest.raises(DataError, match="5 comparisons of one prompt .* need 3 rows"):
        loader([*alike, *alike[:2]], mesh, prompts=np.zeros(5, np.int64))


def test_what_a_tree_lacks_is_said_before_the_first_batch(trees, mesh):
    known = with_columns(trees, {"reference_logps": [(-1.0, -2.0)] * len(trees)})
    shape = planning.fit_shape(known, rows=2, length=40)
    (batch,) = take(Loader(known, shape, mesh=mesh, seed=0).batches(0), 1)
    np.testing.assert_array_equal(np.unique(batch.reference_logps), [-2.0, -1.0, 0.0])
    partly = TreeStore.write([*known, trees[0]])
    with pytest.raises(DataError, match="but comparison 50, counting from 0, has no reference"):
        Loader(partly, shape, mesh=mesh, seed=0)
    with pytest.raises(DataError, match="comparison 50, .* has 3 responses, but a group"):
        Loader([*known, tree(3, 1, 1, 1)], shape, mesh=mesh, seed=0)


@pytest.mark.parametrize("weight", [np.nan, -1.0, np.inf])
def test_weights_are_looked_at_first(trees, mesh, weight):
    with pytest.raises(ValueError, match="the weight of tree 3 is"):
        loader(trees, mesh, weights=np.where(np.arange(50) == 3, weight, 1.0))


def test_an_empty_epoch_is_refused_and_not_waited_for(trees, mesh):
    shape = planning.fit_shape(trees, rows=2, length=40)
    with pytest.raises(DataError, match="an epoch would be empty"):
        Loader([], shape, mesh=mesh, seed=0)
    with pytest.raises(DataError, match="an epoch would be empty"):
        loader(trees, mesh, weights=np.zeros(50))


def test_trees_on_disk_make_the_same_batches(trees, mesh):
    in_memory, on_disk = (loader(each, mesh) for each in (trees, TreeStore.write(trees)))
    assert in_memory.shape == on_disk.shape
    count = in_memory.steps(2)
    pairs = zip(take(in_memory.batches(0), count), take(on_disk.batches(0), count), strict=True)
    assert all(equal(a, b) for a, b in pairs)


def test_accumulation_stacks_the_batches_that_would_have_come_one_by_one(trees, mesh):
    single = take(loader(trees, mesh).batches(0), 4)
    window = take(loader(trees, mesh, accumulate=4).batches(0), 1)[0]
    assert window.tokens.shape == (4, 2, 40)
    for micro, batch in enumerate(single):
        assert equal(
            jax.tree.map(lambda leaf, m=micro: leaf[m], window),
            jax.tree.map(lambda leaf: leaf[0], batch),
        )


def test_batches_lie_over_the_mesh(trees):
    mesh = parallel.make_mesh(parallel.MeshShape(data=2), devices=jax.devices()[:2])
    batches = loader(trees, mesh).batches(0)
    batch = next(batches)
    batches.close()
    assert batch.tokens.sharding.shard_shape(batch.tokens.shape) == (1, 1, 40)


def test_rows_that_do_not_divide_over_the_devices_are_refused(trees):
    mesh = parallel.make_mesh(parallel.MeshShape(data=4), devices=jax.devices()[:4])
    with pytest.raises(MeshError, match="2 rows do not divide over 4 devices"):
        loader(trees, mesh)


def test_an_error_in_the_thread_reaches_the_reader_in_its_place():
    def load(item):
        if item == 2:
            raise OSError("disk gone")
        return item

    batches = prefetch(iter(range(5)), load, ahead=2)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="disk gone"):
        next(batches)


def test_the_thread_ends_with_its_reader():
    loaded = []
    batches = prefetch(iter(range(1000)), lambda item: loaded.append(item) or item, ahead=2)
    assert next(batches) == 0
    batches.close()
    count = len(loaded)
    assert count < 10
    assert list(prefetch(iter(range(7)), str, ahead=2)) == list("0123456")
