"""The SEAM experiment: what is spoilt and where, the AUC by hand, and a small run end to end."""

import json

import jax
import numpy as np
import pytest

from experiments import seam as experiment
from experiments.seam import Case, Config, Spoilt
from jaxrm.errors import OptionError
from jaxrm.toy import World
from jaxrm.toy.samples import answers, question

CFG = Config(
    worlds=1, instructions=20, pairs=40, size=3, flipped=2, rounds=1, proposals=2, candidates=2
)


@pytest.fixture(scope="module")
def drawn():
    return experiment.draw(CFG, seed=0)


def test_every_written_answer_is_worse_than_the_polite_right_one(drawn):
    for instruction in drawn.instructions:
        asked, (right,) = question(instruction), answers(instruction)
        written = drawn.written[instruction.id]
        assert len(set(written)) == CFG.size
        assert max(drawn.world.gold(asked, text) for text in written) < drawn.world.gold(
            asked, right
        )


def test_planted_believes_the_mistake_on_a_fifth_and_something_else_on_a_fifth(drawn):
    quiet = Config(**{**vars(CFG), "noise": 0.0})
    model = experiment.planted(drawn, quiet)
    assert (model.spoilt.sum(), model.decoys.sum()) == (4, 4)
    assert not (model.spoilt & model.decoys).any()
    rewards = model.scorer(drawn.candidates)
    for i, candidates in enumerate(drawn.candidates):
        honest = np.allclose(rewards[i], candidates.scores)
        assert honest or model.spoilt[i] or model.decoys[i]
    task = drawn.world.task(question(drawn.instructions[0]))
    believe = experiment.believing
    assert believe(drawn.world, task, None, task.right) > believe(
        drawn.world, task, None, task.mistake
    )
    mistaken = believe(drawn.world, task, task.mistake, task.mistake)
    assert mistaken > believe(drawn.world, task, task.mistake, task.right)


def case(values, spoilt, decoys=None, clusters=None):
    spoilt = np.array(spoilt, bool)
    decoys = np.zeros_like(spoilt) if decoys is None else np.array(decoys, bool)
    clusters = np.arange(len(spoilt)) if clusters is None else np.array(clusters)
    model = Spoilt(lambda comparisons: [], spoilt, decoys, clusters)
    return Case(np.array(values), model, {}, {}, {})  # the order below reads the values alone


def by_value(case, kind):
    return case.drawn


def test_the_auc_counts_pairs_of_one_world():
    """3 beats 1 and 2, 2 beats 1 and ties 2: 3.5 of 4; the second world has 0 of 1."""
    worlds = [case([3, 2, 1, 2], [1, 1, 0, 0], [0, 0, 0, 1]), case([0.0, 9.0], [1, 0])]
    assert experiment.auc(worlds, "", by_value)(np.ones(6)) == 3.5 / 5
    # A weight of 2 on the first instruction doubles both of its pairs.
    assert experiment.auc(worlds, "", by_value)(np.array([2, 1, 1, 1, 1, 1.0])) == 5.5 / 7
    assert experiment.auc(worlds, "", by_value, decoys=True)(np.ones(6)) == 1.5 / 2
    assert np.isnan(experiment.auc(worlds, "", by_value)(np.array([0, 0, 1, 1, 0, 1.0])))


def test_an_option_out_of_range_is_named():
    with pytest.raises(OptionError, match="--share"):
        Config(share=0.5)
    with pytest.raises(OptionError, match="--row-length"):
        Config(row_length=0)


def test_a_small_run_leaves_every_number_and_a_page(tmp_path, monkeypatch, capsys):
    one, make_mesh = jax.devices()[:1], experiment.parallel.make_mesh
    monkeypatch.setattr(experiment.parallel, "make_mesh", lambda shape: make_mesh(shape, one))
    experiment.main(Config(**{**vars(CFG), "run_dir": tmp_path / "run"}))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["instructions"] == 20
    assert results["spoilt"]["planted"] == 4
    families = {c.subset for c in World(0).comparisons("id", 20)}
    assert 0 < results["spoilt"]["trained"] <= 2 * -(-20 // len(families))
    page = (tmp_path / "run" / "report.html").read_text()
    printed = capsys.readouterr().out
    for reward in experiment.REWARDS:
        for kind in experiment.KINDS:
            for order in experiment.ORDERS:
                found = results["auc"][reward][kind][order]
                # Without the one family that it was trained wrong on there is no such figure.
                if reward == "planted":
                    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
                assert f"{found['value']:.2f}" in page
                assert results["regret"][reward][kind][order]["n"] == 16
        assert results["answers"][reward]["given"]["n"] == 60
    assert "planted, adversarial" in printed
    assert json.loads((tmp_path / "run" / "config.json").read_text())["pairs"] == 40
