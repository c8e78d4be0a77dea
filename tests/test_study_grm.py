"""The study's engine on a random base of one small layer: what is run, read, kept and chosen."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxrm.study.lab import Lab
from jaxrm.study.recipe import Recipe, WithText
from jaxrm.train.short import Point

from experiments import study_grm, study_grm_methods
from experiments.study_grm import ABILITY, Condition, Config, Evaluation, Job
from experiments.study_grm_methods import METHODS, STRENGTHS, replay
from jaxrm import toy
from jaxrm.data import packing, planning
from jaxrm.errors import DataError, OptionError
from jaxrm.evaluate.probe import fit_head
from jaxrm.models import transformer
from jaxrm.read.packed import reading_shape
from jaxrm.study import lab
from jaxrm.study.records import Trial
from tests.methods.small_base import small_base

PAIRS, ITEMS = 30, 12
VOCABULARY = json.loads((toy.TOKENIZER / "config.json").read_text())["vocab_size"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def job(method="bt", rate=1e-2, strength=None, **other):
    fields = {
        "condition": Condition(PAIRS, 0.25, 0.7),
        "seed": 0,
        "lexicon": "report",
        "base": "key",
        "evaluation": Evaluation((("val", ITEMS), ("id", ITEMS)), (("id", 6),)),
    }
    return Job(method, Trial(rate, strength), **fields | other)


@pytest.fixture(scope="module")
def world():
    return toy.World(seed=0, label_noise=0.25, cue_agreement=0.7)


@pytest.fixture(scope="module")
def record(base):
    return study_grm.run(job(), base)


def test_a_record_says_what_was_run_and_found(record, world, base):
    assert list(record) == [
        *("method", "learning_rate", "strength", "condition", "seed", "head", "splits", "drift"),
        *("stopped", "steps", "curve", "seconds", "tokens"),
    ]
    assert record["condition"] == dataclasses.asdict(Condition(PAIRS, 0.25, 0.7))
    assert record["head"] == {"kind": "linear", "layers": 1}
    assert [record["splits"][split]["n"] for split in ("val", "id")] == [ITEMS, ITEMS]
    assert record["splits"]["val"]["language"] is None
    assert 0 <= record["splits"]["id"]["language"] <= 1
    assert record["drift"]["id"] > 1e-6
    assert record["stopped"] == record["steps"] > 0
    trees = study_grm.packed(Lab(base), world, "train", PAIRS, "all").trees
    assert record["tokens"] == sum(map(packing.tree_length, trees))


def test_a_job_leaves_what_the_next_ones_share_as_it_was(record, base):
    again = study_grm.run(job(), base)
    assert again | {"seconds": 0} == record | {"seconds": 0}


def test_another_rate_and_longer_run_share_the_compilation(record, base):
    before = lab._trainer.cache_info().misses
    longer = Condition(2 * PAIRS, 0.0, 0.7, epochs=2)
    evaluation = Evaluation((("val", ITEMS),), curves=(("id", 6),), points=2)
    other = study_grm.run(job(rate=1e-4, condition=longer, seed=1, evaluation=evaluation), base)
    assert lab._trainer.cache_info().misses == before
    assert other["steps"] > record["steps"]
    assert [point["step"] for point in other["curve"]] == [other["steps"] // 2, other["steps"]]
    assert set(other["curve"][0]) == {"step", "id/macro", "id/loss"}


def test_a_frozen_trunk_stays_and_its_head_moves(base):
    frozen = study_grm.run(job("frozen", rate=0.1), base)
    still = study_grm.run(job("frozen", rate=1e-9), base)
    assert frozen["drift"]["id"] == pytest.approx(0.0, abs=1e-7)
    assert frozen["splits"]["id"]["loss"] != still["splits"]["id"]["loss"]


def scripted(monkeypatch, points):
    """Training gives these parameters in turn; their reward head's first weight is remembered."""
    seen = []

    def train(lab, job, params, trees, count):
        seen.append((params, trees, count))
        for step, weight in enumerate(points, 1):
            head = {"weight": jnp.full_like(params["reward_head"]["weight"], weight)}
            yield Point(step, len(points), params | {"reward_head": head}, 1.0, 1)

    monkeypatch.setattr(study_grm, "train", train)
    return seen


def test_early_stopping_keeps_what_was_best_on_val(monkeypatch, base):
    seen = scripted(monkeypatch, [1.0, 2.0, 3.0])
    asked = []

    def of_rewards(structure, params, data):
        weight = float(params["reward_head"]["weight"][0, 0])
        asked.append((weight, len(data.trees)))
        return {"macro": {1.0: 0.5, 2.0: 0.7, 3.0: 0.6}[weight]}

    monkeypatch.setattr(study_grm, "of_rewards", of_rewards)
    monkeypatch.setattr(study_grm, "EARLY_ITEMS", 5)
    evaluation = Evaluation((("val", ITEMS),))
    early = study_grm.run(job("bt_early", evaluation=evaluation), base)
    assert (early["stopped"], early["steps"], seen[0][2]) == (2, 3, study_grm.EARLY_POINTS)
    assert asked == [(1.0, 5), (2.0, 5), (3.0, 5), (2.0, ITEMS)]
    assert study_grm.run(job(evaluation=evaluation), base)["stopped"] == 3


def test_lp_ft_starts_from_the_fitted_head(monkeypatch, base, world):
    seen = scripted(monkeypatch, [1.0])
    study_grm.run(job("lp_ft"), base)
    here = Lab(base)
    training = study_grm.packed(here, world, "train", PAIRS, "all")
    states = here.read(here.start(0).params, training, ABILITY)["states"]
    fitted = fit_head(list(states), training.comparisons)
    weight = seen[0][0]["reward_head"]["weight"]
    np.testing.assert_allclose(weight[:, 0], fitted, rtol=1e-5)
    rewards = states @ weight[:, 0]
    loss = np.logaddexp(0, rewards[:, 1] - rewards[:, 0]).mean()
    assert loss < math.log(2)  # that of a head that knows nothing


def test_dpo_knows_the_base_and_others_need_not(monkeypatch, base):
    seen = scripted(monkeypatch, [1.0])
    study_grm.run(job("grm_dpo", strength=0.1), base)
    study_grm.run(job("grm_dpo_reference_free", strength=0.1), base)
    (_, with_references, _), (_, without, _) = seen
    lengths = [branch.targets.sum() for branch in with_references[0].branches]
    # A small random model is nearly indifferent between the words of its vocabulary.
    expected = [-length * math.log(VOCABULARY) for length in lengths]
    np.testing.assert_allclose(with_references[0].reference_logps, expected, rtol=0.1)
    assert without[0].reference_logps is None


def test_replay_shares_its_loss_with_text(base, world):
    here = Lab(base, rows=2)
    trees = study_grm.packed(here, world, "train", PAIRS, "all").trees
    texts = study_grm.text_trees(here, "report")
    assert max(map(packing.tree_length, texts)) <= here.length
    batch = WithText(
        packing.pack(trees, [[0, 1], [2]], here.shape(Recipe())),
        packing.pack(texts, [[0]], here.text_shape),
    )
    tokens = [*map(packing.tree_length, trees[:3]), packing.tree_length(texts[0])]
    assert (batch.comparison >= 0).sum() == sum(tokens)
    start = here.start(0)
    nothing = np.zeros_like(start.params["embedding"])

    @jax.jit
    def losses(params):
        model = transformer.merge(start.structure, params)
        return replay(0.2)(model, batch, jax.random.key(0))

    terms = losses(start.params | {"embedding": nothing})
    reward, text = terms["reward"], terms["text"]
    np.testing.assert_allclose([reward.coefficient, text.coefficient], [0.8, 0.2], rtol=1e-6)
    assert reward.weights.sum() == 3
    # Without an embedding every reward is 0, and every token as likely as any other.
    np.testing.assert_allclose(reward.values[reward.weights > 0], math.log(2), rtol=1e-6)
    assert text.weights.sum() == packing.measure(texts[:1], ask="all", preferences=False)[0, 3]
    np.testing.assert_allclose(text.values[text.weights > 0], math.log(VOCABULARY), rtol=1e-6)


@pytest.mark.parametrize("split", get_args(toy.Split))
def test_one_shape_serves_every_split_and_method(base, world, split):
    here = Lab(base)
    found = study_grm.packed(here, world, split, 40)
    wanted = packing.pack([], [], reading_shape(here.rows, here.length, "none"))
    for batch in found.batches:
        assert jax.tree.map(np.shape, batch) == jax.tree.map(np.shape, wanted)
    index = np.concatenate([b.response_index[b.response_mask] for b in found.batches])
    assert sorted(index) == list(range(80))
    plans = []
    for ask in get_args(packing.Ask):
        sizes = packing.measure(found.trees, ask=ask, preferences=True)
        shape = here.shape(Recipe(ask=ask))
        plans.append(planning.plan_epoch(sizes, shape, 0, 0))
    assert plans[0] == plans[1] == plans[2]


def chosen():
    first = {method: STRENGTHS.get(method, (None,))[0] for method in METHODS}
    return {m: {"learning_rate": 3e-4, "strength": s, "trials": []} for m, s in first.items()}


def test_the_confirmation_runs_each_job_once_the_main_part_first(monkeypatch, base):
    asked = []

    def count(jobs, run, out, *, workers, progress):
        asked.extend(jobs)
        return [{"job": job} for job in jobs]

    monkeypatch.setattr(study_grm, "sweep", count)
    monkeypatch.setattr(toy, "shipped_base", lambda: base)
    records = study_grm.confirm(Config(confirm=True, workers=1), chosen())
    # 12 seeds x 3 conditions x 8 methods; 3 x 8 x 2 sizes less the 3 x 3 x 2 that are main's;
    # 3 x 4 strengths less main's 3; 3 x 2 x 2 heads; 3 frozen; 2 x 2 x 2 curves.
    counts = {"main": 288, "sizes": 30, "strengths": 9, "heads": 12, "frozen": 3, "curves": 8}
    parts = [record["part"] for record in records]
    assert {part: parts.count(part) for part in counts} == counts
    assert parts[:288] == ["main"] * 288
    assert len(set(asked)) == len(asked) == 350
    assert [job.seed for job in asked[:288]] == [100 + i // 24 for i in range(288)]
    assert {job.lexicon for job in asked} == {"report"}


def test_from_a_screen_to_a_page_and_nothing_twice(monkeypatch, tmp_path, base):
    splits = set()
    comparisons = toy.World.comparisons

    def watched(world, split, *args):
        splits.add((world.lexicon, split))
        return comparisons(world, split, *args)

    monkeypatch.setattr(toy.World, "comparisons", watched)
    monkeypatch.setattr(toy, "shipped_base", lambda: base)
    monkeypatch.setattr(study_grm_methods, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(study_grm_methods, "HEAD_RATES", (1e-2,))
    small = {"pairs": PAIRS, "items": ITEMS, "val_items": ITEMS, "side_items": ITEMS}
    small |= {"sample_items": 6, "workers": 1, "run_dir": tmp_path, "methods": ("bt",)}
    study_grm.main(Config(screen=True, base=base, seeds=1, **small))
    assert splits == {("dev", "train"), ("dev", "val")}  # and no test split
    choices = json.loads((tmp_path / "choices.json").read_text())
    assert set(choices) == {"bt", "frozen"}
    assert choices["bt"]["learning_rate"] in (1e-3, 1e-2)

    confirm = Config(
        confirm=True, choices=tmp_path / "choices.json", seeds=2, parts=("main",), **small
    )
    study_grm.main(confirm)
    page = (tmp_path / "results.md").read_bytes()
    assert b"ood_prompt" in page
    monkeypatch.setattr(study_grm, "run", functools.partial(pytest.fail, "run again"))
    study_grm.main(confirm)
    assert (tmp_path / "results.md").read_bytes() == page

    records, copy = tmp_path / "records.jsonl", tmp_path / "copy" / "results.md"
    kept = {"report": records, "choices": tmp_path / "choices.json", "page": copy}
    study_grm.main(Config(**kept, **small))
    assert copy.read_bytes() == page
    records.unlink()
    with pytest.raises(DataError, match="--confirm makes the records"):
        study_grm.main(Config(**kept, **small))


def test_what_cannot_be_run_is_refused(monkeypatch, tmp_path, base):
    for wrong in ({}, {"screen": True, "confirm": True}):
        with pytest.raises(OptionError, match="one of the three"):
            Config(**wrong)
    with pytest.raises(OptionError, match="--methods"):
        Config(screen=True, methods=("bt", "magic"))
    with pytest.raises(OptionError, match="needs --base"):
        study_grm.main(Config(screen=True))
    with pytest.raises(DataError, match="--screen makes the choices"):
        study_grm.main(Config(confirm=True, choices=tmp_path / "none.json"))
    monkeypatch.setattr(toy, "shipped_base", lambda: base)
    with pytest.raises(DataError, match="no choice for grm_sft"):
        study_grm.confirm(Config(confirm=True, methods=("bt",)), {"bt": chosen()["bt"]})
