"""The HaF experiment: its losses and scores by hand, what its figures are, and a small run."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from experiments import haf as experiment
from experiments.haf import METHODS, MIXTURE, SIDES, THEMES, Config
from jaxrm import toy
from jaxrm.data import packing, planning
from jaxrm.errors import OptionError
from jaxrm.huggingface import families, hub
from jaxrm.models import heads, transformer
from jaxrm.study import lab as laboratory
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe
from jaxrm.train.terms import Term, total_weight, weighted_sum


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    config = json.loads((toy.TOKENIZER / "config.json").read_text()) | sizes
    directory = tmp_path_factory.mktemp("base") / "export"
    model = transformer.create(families.read(config), None, seed=0)
    hub.save(model, directory, Lab(toy.TOKENIZER).tokenizer)
    return Lab(directory, rows=experiment.ROWS)


@pytest.fixture(scope="module")
def trees(lab):
    return experiment.training_trees(lab, MIXTURE, 0, 10)


def test_data_sets_share_no_family_with_each_other_or_with_what_is_held_out():
    world = toy.World(0)
    assert sorted(f for families in THEMES.values() for f in families) == sorted(world.families)
    drawn = experiment.data_sets(0, "train", 6)
    for name, comparisons in drawn.items():
        assert len(comparisons) == 6
        assert {c.subset for c in comparisons} <= set(THEMES[name]) - world.ood_families
    mixed = experiment.mixture(0, "train", 10)
    assert mixed == [c for comparisons in drawn.values() for c in comparisons[:2]]


def test_seeds_whose_worlds_lack_a_data_set_are_passed_over():
    seeds = experiment.usable_seeds(0)
    usable = [next(seeds) for _ in range(60)]
    passed = set(range(usable[-1])) - set(usable)
    assert passed
    for seed in passed:
        held_out = toy.World(seed).ood_families
        assert any(set(families) <= held_out for families in THEMES.values())


def test_the_loss_at_the_base_is_log_two_for_each_part(lab, trees):
    shape = lab.shape(METHODS["haf"].recipe)
    sizes = packing.measure(trees, ask="all", preferences=True)
    batch = packing.pack(
        trees, planning.plan_rows(sizes, shape.capacity, np.arange(len(trees))), shape
    )
    start = lab.start(0)

    def total(params, loss_fn):
        found = loss_fn(transformer.merge(start.structure, params), batch, jax.random.key(0))
        terms = [term for term in found.values() if isinstance(term, Term)]
        return sum(
            t.coefficient * weighted_sum(t.values, t.weights) / total_weight(t.weights)
            for t in terms
        )

    haf = functools.partial(total, loss_fn=experiment.haf(0.2))
    dpo = functools.partial(total, loss_fn=experiment.dpo(0.1))
    zero_head = jax.tree.map(np.zeros_like, start.params["reward_head"])
    with jax.set_mesh(laboratory.mesh()):
        of_both = jax.jit(haf)(start.params | {"reward_head": zero_head})
        of_policy, slopes = jax.jit(jax.value_and_grad(dpo))(start.params)
    np.testing.assert_allclose(of_both, 1.2 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(of_policy, np.log(2), rtol=1e-5)
    assert not np.any(slopes.pop("reward_head")["weight"])
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes)) > 1e-4


def test_without_its_policy_haf_is_bradley_terry(lab, trees):
    haf = lab.fit(METHODS["haf"].recipe, trees, rate=1e-3, strength=0.0).params
    baseline = lab.fit(Recipe(), trees, rate=1e-3).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), haf, baseline)


def test_a_policy_that_is_the_reference_has_no_preference(lab):
    data = experiment.packed(lab, experiment.mixture(0, "val", 10), "all")
    method = METHODS["dpo"]
    scores = lab.read(lab.start(0).params, data, {"scores": method.scores})["scores"]
    np.testing.assert_allclose(scores, np.zeros((10, 2)), atol=1e-5)
    trees = experiment.training_trees(lab, MIXTURE, 0, 10)
    trained = lab.fit(method.recipe, trees, rate=1e-2, strength=0.1).params
    readings = {"scores": method.scores, "logps": heads.response_logps}
    found = lab.read(trained, data, readings)
    reference = np.array([tree.columns["reference_logps"] for tree in data.trees])
    expected = 0.1 * (found["logps"] - reference)
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.01


def test_summaries_by_hand():
    # Trained on i (5 is the mixture), tested on j: 10 i + j.
    table = 10 * np.arange(6)[:, None] + np.arange(8)
    found = {title: of(table) for title, of in experiment.SUMMARIES.items()}
    assert found == {
        "single, own set": 22.0,
        "single, other sets": 22.0,
        "single, ood_prompt": 25.0,
        "mixture, all sets": 52.0,
        "mixture, ood_prompt": 55.0,
        "mixture, ood_response": 56.0,
        "mixture, spurious": 57.0,
    }
    corner = np.zeros((6, 8))
    corner[0, 1] = 1.0
    assert experiment.SUMMARIES["single, other sets"](corner) == 1 / 20
    assert experiment.SUMMARIES["single, own set"](corner) == 0


def test_figures_compare_each_method_with_bradley_terry_seed_by_seed():
    accuracies = np.zeros((6, 3, 6, 8))
    accuracies[:, 1] += 0.1
    accuracies[:, 2, 5, 5] = [0.1, -0.1] * 3
    found = experiment.figures(accuracies)["summary"]
    gain = found["mixture, ood_prompt"]["over bt"]
    assert (gain["haf"].mean, gain["haf"].p) == (pytest.approx(0.1), 2 / 2**6)
    assert (gain["dpo"].mean, gain["dpo"].p) == (0.0, 1.0)
    assert found["mixture, ood_prompt"]["holm"]["haf"] == pytest.approx(14 / 32)
    spread = found["mixture, ood_prompt"]["accuracy"]["dpo"]
    assert spread["standard_error"] == pytest.approx(np.sqrt(0.06 / 5 / 6))
    assert spread["n"] == 6


def test_a_method_takes_its_best_trial_and_the_first_of_equals():
    values = {("bt", 1, None): 0.9, ("haf", 1, 0.2): 0.5, ("haf", 1, 2.0): 0.7, ("haf", 2, 2): 0.7}
    assert experiment.best(values, "haf") == ("haf", 1, 2.0)
    assert {len(method.trials) for method in METHODS.values()} == {4}


def test_a_small_run_ends_in_tables_and_goes_on_where_it_was(lab, tmp_path, capsys, monkeypatch):
    # One strength of each method, which the tests above have compiled a step for.
    for name, strength in (("haf", 0.0), ("dpo", 0.1)):
        tried = dataclasses.replace(METHODS[name], trials=((1e-3, strength), (1e-4, strength)))
        monkeypatch.setitem(experiment.METHODS, name, tried)
    counts = dict.fromkeys(("pairs", "val_items", "items", "side_items"), len(THEMES))
    cfg = Config(
        run_dir=tmp_path / "run", seeds=2, tuning_seeds=1, base=lab.base, workers=1, **counts
    )
    experiment.main(cfg)
    printed = capsys.readouterr().out
    results = json.loads((cfg.run_dir / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    assert results["tuning_seeds"] == [2]
    assert len(results["trials"]) == 8
    assert list(results["matrices"]) == list(METHODS)
    means = [[cell["mean"] for cell in row] for row in results["matrices"]["haf"]]
    assert np.shape(means) == (6, 8)
    assert results["summary"]["mixture, ood_prompt"]["accuracy"]["dpo"]["n"] == 2
    for text in ("haf - bt", "bt, trained on", *THEMES, *SIDES, "mixture"):
        assert text in printed

    def run(job, base):
        raise AssertionError(f"{job} has a record")

    monkeypatch.setattr(experiment, "run", run)
    experiment.main(cfg)
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"pairs": 4}, {"epochs": 0}, {"tuning_seeds": 0}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong)).replace('_', '-')} must be"):
        Config(**wrong)
