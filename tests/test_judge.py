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
from jaxrm.study.lab import Lab, mesh

from experiments import judge as experiment
from experiments.judge import ARMS, METHODS, SPLITS, Config
from jaxrm import toy
from jaxrm.data import packing
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import OptionError
from jaxrm.evaluate import scorers
from jaxrm.huggingface import families, hub
from jaxrm.losses import judge
from jaxrm.models import heads, transformer

VOCABULARY = json.loads((toy.TOKENIZER / "config.json").read_text())["vocab_size"]

PAIR = Comparison(
    (Message("user", "thea of irvine: what colour is the quorl?"),),
    ((Message("assistant", "it is pink."),), (Message("assistant", "it is ivory!"),)),
    ranks=(0, 1),
    subset="colour",
    id="pair",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    config = json.loads((toy.TOKENIZER / "config.json").read_text()) | sizes
    directory = tmp_path_factory.mktemp("base") / "export"
    model = transformer.create(families.read(config), None, seed=0)
    hub.save(model, directory, load_tokenizer(toy.TOKENIZER))
    return Lab(directory, rows=2)


@pytest.fixture(scope="module")
def pairs():
    return toy.World(0).comparisons("id", 6)


def texts(lab, tree):
    """What a tree's prompt says, and the tokens that count of each of its branches."""
    decode = lab.tokenizer.hf.decode
    return decode(tree.prompt), [decode(b.tokens[b.targets]) for b in tree.branches]


def test_a_judge_reads_both_answers_and_says_one_letter(lab):
    asked = [experiment.verdicts(PAIR, exchanged) for exchanged in (False, True)]
    start = "<start_of_turn>user\nthea of irvine: what colour is the quorl?<end_of_turn>\n"
    first, second = (
        f"<start_of_turn>model\n{answer}<end_of_turn>\n"
        for answer in ("it is pink.", "it is ivory!")
    )
    assert [c.prompt for c in asked] == [start + first + second, start + second + first]
    # The right verdict has rank 0: "A" where the better answer comes first.
    assert [(c.responses, c.ranks) for c in asked] == [(("A", "B"), (0, 1)), (("A", "B"), (1, 0))]
    trees = experiment.judge_trees(lab, [PAIR], 0)
    assert texts(lab, trees[0])[1] == ["A", "B"]


def test_the_order_of_answers_is_random_and_the_seed_s(lab):
    many = toy.World(0).comparisons("train", 40)
    orders = [tree.ranks for tree in experiment.judge_trees(lab, many, 0)]
    assert {orders.count((0, 1)), orders.count((1, 0))} != {0, 40}
    assert 8 < orders.count((0, 1)) < 32
    assert orders == [tree.ranks for tree in experiment.judge_trees(lab, many, 0)]
    assert orders != [tree.ranks for tree in experiment.judge_trees(lab, many, 1)]


def losses(lab, method, trees):
    """The terms of a batch under a model whose rewards are 0 and whose words are alike."""
    recipe = METHODS[method].recipe
    batch = packing.pack(trees, [range(len(trees))], lab.shape(recipe))
    start = lab.start(0)
    params = start.params | {"embedding": np.zeros_like(start.params["embedding"])}

    with jax.set_mesh(mesh()):
        model = transformer.merge(start.structure, params)
        return recipe.loss(None)(model, batch, jax.random.key(0))


def test_a_judge_that_knows_nothing_loses_log_two(lab, pairs):
    (term,) = losses(lab, "judge", experiment.judge_trees(lab, pairs[:2], 0)).values()
    np.testing.assert_allclose(term.values[term.weights > 0], math.log(2), rtol=1e-6)
    assert term.weights.sum() == 2


def test_a_critic_reads_each_answer_with_both_notes(lab):
    world = toy.World(0)
    family = next(iter(world.families))
    praise, blame = experiment.readers_words(world, family)
    pair = Comparison(PAIR.prompt, PAIR.responses, ranks=(0, 1), subset=family)
    (tree,) = experiment.critique_trees(lab, world, [pair])
    assert texts(lab, tree)[1] == [praise, blame, praise, blame]
    branches = [lab.tokenizer.hf.decode([*tree.prompt, *b.tokens]) for b in tree.branches]
    assert branches[1].endswith(f"model\nit is pink.<end_of_turn>\n{blame}<eos>")
    assert branches[2].endswith(f"model\nit is ivory!<end_of_turn>\n{praise}<eos>")


def test_a_critic_that_knows_nothing_loses_the_words_and_log_two(lab, pairs):
    trees = experiment.critique_trees(lab, toy.World(0), pairs[:1])
    terms = losses(lab, "critique", trees)
    reward, note = terms["reward"], terms["note"]
    np.testing.assert_allclose(reward.values[reward.weights > 0], math.log(2), rtol=1e-6)
    words = sum(int(branch.targets.sum()) for branch in trees[0].branches) / 2
    expected = words * math.log(VOCABULARY)
    np.testing.assert_allclose(note.values[note.weights > 0], expected, rtol=1e-6)
    assert reward.weights.sum() == note.weights.sum() == 1


def test_rewards_after_notes_are_a_mean_over_the_model_s_own():
    logps = jnp.log(jnp.array([0.3, 0.1]))
    value, gradients = jax.value_and_grad(experiment.expected, (0, 1))(jnp.array([1.0, 5.0]), logps)
    np.testing.assert_allclose(value, 0.75 * 1 + 0.25 * 5, rtol=1e-6)
    np.testing.assert_allclose(gradients[0], [0.75, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(gradients[1], 0)  # notes learn from the labels alone


def test_both_orders_of_the_judge_are_the_library_s(lab, pairs):
    params = lab.start(0).params
    logps = []
    for exchanged in (False, True):
        asked = [experiment.verdicts(pair, exchanged) for pair in pairs]
        trees = experiment.first_tokens(lab.trees(asked), 1)
        reading = {"logps": heads.response_logps}
        logps += list(lab.read(params, lab.pack_trees(asked, trees, "all"), reading)["logps"].T)
    found = np.array(scorers.of_judge(experiment.of_model(lab, params))(pairs))
    np.testing.assert_allclose(found[:, 0], judge.first_better(*logps), rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert len(set(found[:, 0].tolist())) > 1


def test_what_the_order_does_to_a_judge(monkeypatch, lab, pairs):
    def always(probabilities):
        given = iter(probabilities)
        monkeypatch.setattr(
            experiment, "of_model", lambda lab, params: lambda asked: [next(given) for _ in asked]
        )
        return experiment.judged(lab, {}, pairs[:2])

    place = always([0.9, 0.9, 0.9, 0.9])  # of each pair, as it is and exchanged
    assert (place["consistent"], place["leaning"]) == (0, pytest.approx(0.4))
    np.testing.assert_allclose(place["scores"], 0.5)
    text = always([0.8, 0.4, 0.7, 0.9])
    np.testing.assert_allclose(text["scores"], [[0.7, 0.3], [0.4, 0.6]])
    assert (text["consistent"], text["leaning"]) == (0.5, pytest.approx(0.2))


def test_from_a_command_to_a_table_and_nothing_twice(monkeypatch, tmp_path, lab, capsys):
    monkeypatch.setattr(experiment, "TRIALS", ((1e-3, 1),))
    cfg = Config(tmp_path, base=lab.base, seeds=2, pairs=12, items=14, workers=1)
    experiment.main(cfg)
    table = capsys.readouterr().out
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["rows"]) == list(ARMS)
    assert results["choices"] == {name: [1e-3, 1] for name in METHODS}
    for row, of in results["rows"].items():
        assert list(of) == list(SPLITS)
        for figures in of.values():
            assert 0 <= figures["accuracy"]["mean"] <= 1
            assert figures["accuracy"]["n"] == 2
            assert (figures["gain"] is None) == (row == "bt")
            assert ("leaning" in figures) == (row == "judge")
    assert results["tokens"]["critique"] > results["tokens"]["bt"]
    assert f"{100 * results['rows']['bt']['id']['accuracy']['mean']:.1f} ±" in table

    monkeypatch.setattr(experiment, "run", functools.partial(pytest.fail, "run again"))
    experiment.main(cfg)
    assert json.loads((tmp_path / "results.json").read_text()) == results


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"pairs": 1}, {"items": 0}, {"seed": -1}])
def test_what_cannot_be_run_is_refused(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong))}"):
        Config(Path("nowhere"), **wrong)
