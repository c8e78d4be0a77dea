"""The RRM experiment: its loss on ties and pairs, the toggled mark, and a small run end to end."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import rrm as experiment
from experiments.rrm import Config, Job
from jaxrm import toy
from jaxrm.data import packing
from jaxrm.data.planning import pair_shape
from jaxrm.errors import OptionError
from jaxrm.methods import augmentation as rrm
from jaxrm.models import heads
from jaxrm.toy.samples import answers, question
from tests.study.small_base import small_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def world():
    return toy.World(seed=0)


class Hidden:
    """A model whose reward of a response is its place in the packed list."""

    @staticmethod
    def hidden(batch):
        return None


def test_ties_and_pairs_weigh_alike(monkeypatch, world):
    """A pair with rewards 0 and 1 costs log(1 + e) = 1.313262, a tie with 2 and 3
    (1.313262 + .313262) / 2 = .813262."""
    monkeypatch.setattr(
        heads, "rewards", lambda model, hidden, batch, rng: batch.response_index.astype(jnp.float32)
    )
    pairs = world.comparisons("train", 5)
    made = rrm.augment(pairs, 0)
    trees = experiment.Lab(toy.TOKENIZER).trees([pairs[0], made[8]])
    batch = packing.pack(trees, [[0, 1]], pair_shape(2, 160, "none"))
    term = experiment.rrm_loss(None)(Hidden, batch, None)["reward"]
    counted = np.asarray(term.weights) > 0
    np.testing.assert_allclose(np.asarray(term.weights)[counted], [1, 1])
    np.testing.assert_allclose(np.asarray(term.values)[counted], [1.313262, 0.813262], atol=1e-6)


def test_a_toggled_mark_changes_the_mark_alone(world):
    for comparison in world.comparisons("id", 20):
        asked = question(comparison)
        plain, marked = (answers(experiment.toggled(comparison))[i::2] for i in (0, 1))
        for answer, one, other in zip(answers(comparison), plain, marked, strict=True):
            assert one != other
            assert answer in (one, other)
            assert one.replace(".", "!", 1) == other
            assert world.gold(asked, one) == world.gold(asked, other)


def test_sensitivity_is_in_deviations_of_the_reward():
    """Changes of 1, 1, 2, 0 over rewards 0, 4, 0, 4, whose deviation is 2."""
    rewards = np.array([[0, 1, 4, 5], [0, 2, 4, 4]], np.float32)
    assert experiment.sensitivity(rewards) == 0.5


def test_budgets(world):
    pairs = world.comparisons("train", 10)
    assert experiment.given(pairs, 4, 0) == (pairs, 4)
    assert len(experiment.pool(pairs, 4, 0)[0]) == 150
    few, epochs = experiment.drawn(pairs, 4, 0)
    assert (len(few), epochs) == (40, 1)
    assert len({(c.id, c.subset) for c in few}) == 40


def test_bsr_and_pcrm_by_hand(monkeypatch, world):
    """The chosen reward is 0 and the rejected one 1: their mean is 1/2, and d = -1."""
    monkeypatch.setattr(
        heads, "rewards", lambda model, hidden, batch, rng: batch.response_index.astype(jnp.float32)
    )
    trees = experiment.Lab(toy.TOKENIZER).trees(world.comparisons("train", 1))
    batch = packing.pack(trees, [[0]], pair_shape(2, 160, "none"))
    level = experiment.bsr_loss(0.3)(Hidden, batch, None)["regularizer"]
    assert (level.coefficient, float(level.value)) == (0.3, 0.25)
    lengths = [int(branch.targets.sum()) for branch in trees[0].branches]
    target = 2.0 / (min(lengths) / max(lengths) + 0.001)
    loss = experiment.pcrm_loss(2.0)(Hidden, batch, None)["reward"].values[0, 0]
    wanted = np.logaddexp(0, 1) + np.logaddexp(0, -1 - target)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_a_small_run_leaves_every_number(base, tmp_path, capsys):
    methods = ("bt", "rrm", "rrm_long")
    sizes = {"seeds": 2, "pairs": 6, "epochs": 1, "items": 4, "workers": 1}
    experiment.main(Config(tmp_path / "run", base, methods=methods, **sizes))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [(arm["method"], arm["agreement"]) for arm in results["arms"]] == [
        *(("bt", 0.5), ("rrm", 0.5)),
        *((name, 0.9) for name in methods),
    ]
    for arm in results["arms"]:
        for figure in (*experiment.SPLITS, "sensitivity"):
            assert arm["figures"][figure]["n"] == 2
            assert (figure in arm["gains"]) == (arm["method"] != "bt")
    tokens = {arm["method"]: arm["figures"]["tokens"]["mean"] for arm in results["arms"]}
    assert tokens["rrm_long"] > 10 * tokens["bt"]
    assert 0 <= results["labels"]["non_contextual_wrong"] <= 1
    assert "rrm_long" in capsys.readouterr().out


def test_the_same_job_has_the_same_record(base):
    job = Job("rrm", 1e-3, None, 0.9, 0, "key", pairs=6, epochs=1, items=4)
    one, other = (experiment.run(job, base) | {"seconds": 0} for _ in range(2))
    assert one == other


def test_an_option_out_of_range_is_named():
    with pytest.raises(OptionError, match="--agreements"):
        Config(agreements=(1.5,))
    for methods in (("rrm",), ("bt", "other")):
        with pytest.raises(OptionError, match="--methods must be bt, and others of"):
            Config(methods=methods)
    with pytest.raises(OptionError, match="--epochs"):
        Config(epochs=16)
