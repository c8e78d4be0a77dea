"""The judge's and the critic's questions, losses and figures on a small random base."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import judge as experiment
from experiments.judge import ARMS, SHOWN, Config, Pairs
from jaxrm import toy
from jaxrm.data import packing
from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import OptionError
from jaxrm.losses import judge
from jaxrm.methods.bench import Bench
from jaxrm.methods.judge import CRITIC, JUDGE, after_notes
from jaxrm.models import heads, transformer
from jaxrm.study.records import Trial
from tests.methods.small_base import small_base

VOCABULARY = json.loads((toy.TOKENIZER / "config.json").read_text())["vocab_size"]

PAIR = Comparison(
    (Message("user", "thea of irvine: what colour is the quorl?"),),
    ((Message("assistant", "it is pink."),), (Message("assistant", "it is ivory!"),)),
    ranks=(0, 1),
    subset="colour",
    id="pair",
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(small_base(tmp_path_factory.mktemp("base")), rows=2)


@pytest.fixture(scope="module")
def pairs():
    return toy.World(0).comparisons("id", 6)


def texts(bench, tree):
    """What a tree's prompt says, and the tokens that count of each of its branches."""
    decode = bench.tokenizer.hf.decode
    return decode(tree.prompt), [decode(b.tokens[b.targets]) for b in tree.branches]


def test_a_judge_reads_both_answers_and_says_one_letter(bench):
    asked = [experiment.verdicts(PAIR, exchanged) for exchanged in (False, True)]
    start = "<start_of_turn>user\nthea of irvine: what colour is the quorl?<end_of_turn>\n"
    first, second = (
        f"<start_of_turn>model\n{answer}<end_of_turn>\n"
        for answer in ("it is pink.", "it is ivory!")
    )
    assert [c.prompt for c in asked] == [start + first + second, start + second + first]
    # The right verdict has rank 0: "A" where the better answer comes first.
    assert [(c.responses, c.ranks) for c in asked] == [(("A", "B"), (0, 1)), (("A", "B"), (1, 0))]
    trees = experiment.verdict_trees(bench, toy.World(0), [PAIR])
    assert texts(bench, trees[0])[1] == ["A", "B"]


def test_the_order_of_answers_is_random_and_the_seed_s(bench):
    many = toy.World(0).comparisons("train", 40)

    def orders(seed):
        return [tree.ranks for tree in experiment.verdict_trees(bench, toy.World(seed), many)]

    assert 8 < orders(0).count((0, 1)) < 32
    assert orders(0) == orders(0)
    assert orders(0) != orders(1)


def losses(bench, method, trees):
    """The terms of a batch under a model whose rewards are 0 and whose words are alike."""
    shape = bench.shape(bench, method, trees)
    batch = packing.pack(trees, [range(len(trees))], shape)
    start = bench.start(0)
    params = start | {"embedding": np.zeros_like(start["embedding"])}

    with jax.set_mesh(bench.devices):
        model = transformer.merge(bench.structure(), params)
        return method.loss(None)(model, batch, jax.random.key(0))


def test_a_judge_that_knows_nothing_loses_log_two(bench, pairs):
    (term,) = losses(
        bench, JUDGE, experiment.verdict_trees(bench, toy.World(0), pairs[:2])
    ).values()
    np.testing.assert_allclose(term.values[term.weights > 0], math.log(2), rtol=1e-6)
    assert term.weights.sum() == 2


def test_a_critic_reads_each_answer_with_both_notes(bench):
    world = toy.World(0)
    family = next(iter(world.families))
    praise, blame = experiment.readers_words(world, family)
    pair = Comparison(PAIR.prompt, PAIR.responses, ranks=(0, 1), subset=family)
    (tree,) = experiment.note_trees(bench, world, [pair])
    assert texts(bench, tree)[1] == [praise, blame, praise, blame]
    branches = [bench.tokenizer.hf.decode([*tree.prompt, *b.tokens]) for b in tree.branches]
    assert branches[1].endswith(f"model\nit is pink.<end_of_turn>\n{blame}<eos>")
    assert branches[2].endswith(f"model\nit is ivory!<end_of_turn>\n{praise}<eos>")


def test_a_critic_that_knows_nothing_loses_the_words_and_log_two(bench, pairs):
    trees = experiment.note_trees(bench, toy.World(0), pairs[:1])
    terms = losses(bench, CRITIC, trees)
    reward, note = terms["reward"], terms["note"]
    np.testing.assert_allclose(reward.values[reward.weights > 0], math.log(2), rtol=1e-6)
    words = sum(int(branch.targets.sum()) for branch in trees[0].branches) / 2
    expected = words * math.log(VOCABULARY)
    np.testing.assert_allclose(note.values[note.weights > 0], expected, rtol=1e-6)
    assert reward.weights.sum() == note.weights.sum() == 1


def test_rewards_after_notes_are_a_mean_over_the_model_s_own():
    logps = jnp.log(jnp.array([0.3, 0.1]))
    value, gradients = jax.value_and_grad(after_notes, (0, 1))(jnp.array([1.0, 5.0]), logps)
    np.testing.assert_allclose(value, 0.75 * 1 + 0.25 * 5, rtol=1e-6)
    np.testing.assert_allclose(gradients[0], [0.75, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(gradients[1], 0)  # notes learn from the labels alone


def test_both_orders_of_the_judge_are_the_library_s(bench, pairs):
    params = bench.start(0)
    logps = []
    for exchanged in (False, True):
        asked = [experiment.verdicts(pair, exchanged) for pair in pairs]
        trees = experiment.first_tokens(bench.trees(asked), 1)
        reading = {"logps": heads.response_logps}
        data = bench.pack_trees(asked, trees, "all")
        logps += list(bench.read(params, data, reading)["logps"].T)
    said = experiment.judged(bench, params, pairs)
    better = (said[:, 0] + 1 - said[:, 1]) / 2
    np.testing.assert_allclose(better, judge.first_better(*logps), rtol=1e-5)
    assert len(set(better.tolist())) > 1


def test_what_the_order_does_to_a_judge(monkeypatch, bench, pairs):
    def always(probabilities):
        said = np.reshape(probabilities, (2, 2))  # of each pair, as it is and exchanged
        monkeypatch.setattr(experiment, "judged", lambda *args: said)
        return experiment.verdict(bench, toy.World(0), {}, pairs[:2])

    place = always([0.9, 0.9, 0.9, 0.9])
    assert (place["consistent"], place["leaning"]) == (0, pytest.approx(0.4))
    assert place["macro"] == 0  # a tie is no win
    text = always([0.8, 0.4, 0.7, 0.9])
    assert (text["consistent"], text["leaning"], text["macro"]) == (0.5, pytest.approx(0.2), 0.5)


def test_from_a_command_to_a_table_and_nothing_twice(monkeypatch, tmp_path, bench, capsys):
    monkeypatch.setattr(experiment, "TRIALS", [Trial(1e-3, 1)])
    cfg = Config(tmp_path, base=bench.base, seeds=2, pairs=12, items=14, workers=1)
    experiment.main(cfg)
    table = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["methods"]) == list(SHOWN)
    assert list(results["choices"]) == list(results["tokens"]) == list(ARMS)
    for figures in results["methods"].values():
        assert list(figures) == list(Pairs.splits)
        for figure in figures.values():
            assert 0 <= figure["mean"] <= 1
            assert figure["n"] == 2
    assert list(results["gains"]) == [f"{row} - bt" for row in SHOWN if row != "bt"]
    assert results["tokens"]["critique"] > results["tokens"]["bt"]
    assert f"{100 * results['methods']['bt']['id']['mean']:.1f} ±" in table
    assert f"leaning to A {100 * results['leaning']['mean']:.1f} ±" in table

    monkeypatch.setattr(experiment, "run", functools.partial(pytest.fail, "run again"))
    experiment.main(cfg)
    assert json.loads((tmp_path / "results.json").read_text()) == results


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"pairs": 1}, {"items": 0}, {"seed": -1}])
def test_what_cannot_be_run_is_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong))}"):
        Config(Path("nowhere"), **wrong)
