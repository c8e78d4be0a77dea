"""Several models as one: what their members share, and what is exported of them."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm import toy
from jaxrm.methods.bench import Bench
from jaxrm.methods.ensembles import ENSEMBLES, MEMBERS, averaged
from jaxrm.methods.task import InMemory, Task
from jaxrm.models.lora import LoraConfig
from tests.methods.small_base import small_base

BENCHES = {"all": {}, "lora": {"train": "lora", "lora": LoraConfig(rank=2)}}


@pytest.fixture(scope="module", params=BENCHES)
def task(request, tmp_path_factory):
    base = small_base(tmp_path_factory.mktemp("base"))
    bench, world = Bench(base, rows=2, **BENCHES[request.param]), toy.World(seed=0)
    train, val = (bench.pack(world.comparisons(split, 16)) for split in ("train", "val"))
    return Task(bench, InMemory(train), val, rate=1e-2, strength=None, epochs=1, seed=5)


@pytest.fixture(scope="module")
def trained(task):
    return {name: task.train(method) for name, method in ENSEMBLES.items()}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_what_scores_is_what_is_exported(task, trained, name):
    bench, held_out = task.bench, task.bench.pack(toy.World(seed=0).comparisons("id", 6))
    scores = trained[name].scores(held_out)
    options = {"mesh": bench.devices, "rows": bench.rows, "row_length": bench.length}
    exported = np.stack(trained[name].read(held_out.trees, **options))
    assert scores.shape == (6, 2)
    assert np.abs(scores[:, 0] - scores[:, 1]).min() > 0
    np.testing.assert_allclose(exported, scores, rtol=1e-4, atol=1e-5)
    assert len(trained[name].models) == MEMBERS


def test_an_ensemble_is_standard_on_validation(task, trained):
    ensemble = trained["ensemble"]
    rewards = np.stack([model.scores(task.validation) for model in ensemble.models])
    means, deviations = (np.expand_dims(f(rewards, axis=(1, 2)), (1, 2)) for f in (np.mean, np.std))
    expected = ((rewards - means) / deviations).mean(axis=0)
    np.testing.assert_allclose(ensemble.scores(task.validation), expected, rtol=1e-4, atol=1e-5)


def test_members_of_an_average_begin_at_one_head_and_those_of_an_ensemble_do_not(task, trained):
    # At these rates no head moves as far as two draws lie apart.
    heads = {
        name: [model.fitted.params["reward_head"]["weight"].ravel() for model in made.models]
        for name, made in trained.items()
    }
    together, apart = (np.corrcoef(heads[name])[0, 1:] for name in ("warm", "ensemble"))
    assert together.min() > 0.9 > np.abs(apart).max()
    starts = [task.bench.start(seed)["reward_head"]["weight"].ravel() for seed in (5, 1005)]
    assert np.corrcoef(heads["warm"][1], starts[0])[0, 1] > 0.9
    assert np.corrcoef(heads["ensemble"][1], starts[1])[0, 1] > 0.9


def test_an_average_of_one_model_scores_as_it_does(task, trained):
    first, *_ = trained["warm"].models
    alone = averaged([first, first])
    np.testing.assert_allclose(
        alone.scores(task.validation), first.scores(task.validation), rtol=1e-4, atol=1e-5
    )
    assert alone.fitted.steps == 2 * first.fitted.steps
