"""GRM's losses on real pairs equal an independent torch computation after the official recipe.

From a file of pairs through `sources`, `chat`, packing, heads and losses, against
tests/grm_oracle.py, which pads and masks as the recipe does (YangRui2015/Generalizable-Reward-Model
on GitHub, commit 3c31be2). jaxrm departs from the recipe in four things; the oracle follows jaxrm
in them, and one test shows what each of the recipe's own choices would have given:

- newline: the recipe also learns to write the white space that a template puts after a turn. Here
  as there the reward is read at it, but it is no language-model target: generation ends with the
  turn, so nothing is ever asked to write it.
- user_turns: the recipe masks the first prompt and learns to write all that follows, which in a
  response of several turns includes what the user says. Here the assistant's turns are targets.
- two_bos: the recipe tokenises a template's text like any other, which puts a second BOS before
  the one that the template writes (Gemma's does). Here there is one, as in `apply_chat_template`.
- dropout: the recipe's scorer leaves the value head's dropout on. Here it is on in training alone.

The recipe also truncates over-length texts, which jaxrm drops and counts; none of these is long.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.grm_gemma import Config, methods
from jaxrm.data import chat, packing, planning, sources
from jaxrm.data.store import with_columns
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import hub
from jaxrm.models import transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import Term, total_weight, weighted_sum
from tests import grm_oracle
from tests.grm_oracle import ALPHA, BETA, DIFFERENCES, IDS, NEURONS, REGULARIZERS, SMOOTHING
from tests.messages_oracle import FOLDER
from tests.models.support import in_order, read_off
from tests.shared_data import shared


@pytest.fixture(scope="module")
def pairs():
    return shared("sample", "pairs_64.jsonl")


@pytest.fixture(scope="module")
def trees(pairs, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = grm_oracle.rows(pairs)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    trees = chat.tokenize(sources.read(path), load_tokenizer(FOLDER))
    # What `margin` makes of the data's own margins.
    return with_columns(trees, {"magnitude": [tree.columns["margin"] for tree in trees]})


def packed(trees):
    shape = planning.fit_shape(trees, rows=3, length=640, ask="all")
    sizes = packing.measure(trees, ask="all", preferences=True)
    plan = planning.plan_rows(sizes, shape.capacity, np.arange(len(trees)))
    assert len(plan) == 3
    return jax.tree.map(jnp.asarray, packing.pack(trees, plan, shape))


@pytest.fixture(scope="module")
def batch(trees):
    return packed(trees)


def reward_model(dropout: float) -> RewardModel:
    """The small Gemma with the oracle's value head."""
    trunk = hub.load(FOLDER, None)
    params = transformer.split(trunk)[1]
    params["reward_head"] = {
        f"{kind}_{i}": jnp.asarray(value)
        for i, layer in enumerate(grm_oracle.head_weights())
        for kind, value in zip(("weight", "bias"), layer, strict=True)
    }
    head = HeadConfig("mlp", hidden=NEURONS, layers=1, dropout=dropout)
    return RewardModel(trunk.config, head, params=params)


def by_pair(values, batch) -> np.ndarray:
    """Values of slots as [pairs, 2], chosen first, whatever packing did to the order."""
    return np.asarray(in_order(values, batch, 2 * len(IDS))).reshape(-1, 2)


def mean(term):
    """The term's mean over the batch, as the train step takes it."""
    return weighted_sum(term.values, term.weights) / total_weight(term.weights)


@functools.partial(jax.jit, static_argnums=0)
def losses(structure, params, batch):
    """What the experiment trains its models on, by the oracle's names."""
    model, found = transformer.merge(structure, params), {}

    def terms(name, regularizer="sft"):
        options = {"alpha": ALPHA, "beta": BETA, "smoothing": SMOOTHING}
        cfg = Config(models=(name,), regularizer=regularizer, **options)
        method, strength = methods(cfg)[name]
        made = method.loss(strength)(model, batch, jax.random.key(0))
        return {part: term for part, term in made.items() if isinstance(term, Term)}

    for name in ("baseline", "margin", "label_smoothed"):
        (found[name],) = map(mean, terms(name).values())
    for name in REGULARIZERS:
        grm = terms("grm", regularizer=name)
        found[name] = mean(grm["text"])
        found[f"total/{name}"] = sum(term.coefficient * mean(term) for term in grm.values())
    return found


@pytest.fixture(scope="module")
def ours(trees, batch):
    """Everything that the oracle computes, computed here."""
    structure, params = transformer.split(reward_model(dropout=0.1))  # which scoring leaves off
    rewards, logps = read_off(structure, params, batch)
    reference = params | {"final_norm": jnp.zeros_like(params["final_norm"])}
    _, reference_logps = read_off(structure, reference, batch)
    found = {
        "rewards": by_pair(rewards, batch),
        "logps": by_pair(logps, batch),
        "reference_logps": by_pair(reference_logps, batch),
        "labels": by_pair(batch.response_length, batch),
    }
    with_reference = with_columns(trees, {"reference_logps": found["reference_logps"]})
    trained = transformer.split(reward_model(dropout=0.0))
    return found | losses(*trained, packed(with_reference))


def check_against(values, ours):
    common = {name for name in values if not name.startswith("as_the_recipe/")}
    assert ours.keys() == common
    for name in sorted(common):
        close = 1e-5 * np.abs(values[name]).max()
        np.testing.assert_allclose(ours[name], values[name], rtol=0, atol=close, err_msg=name)


def test_terms_and_totals_equal_the_stored_torch_ones(ours):
    check_against(np.load(grm_oracle.VALUES), ours)


@pytest.mark.torch
def test_terms_and_totals_equal_live_torch(pairs, ours):
    pytest.importorskip("torch")
    check_against(grm_oracle.answers(pairs), ours)


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_the_recipes_own_choice_gives_another_loss(ours, difference):
    recipes = np.load(grm_oracle.VALUES)[f"as_the_recipe/{difference}"]
    assert abs(recipes / ours["total/sft"] - 1) > 5e-3


def test_the_reward_is_read_at_the_newline_that_is_no_target(batch):
    newline = load_tokenizer(FOLDER).hf.convert_tokens_to_ids("Ċ")
    batch = jax.tree.map(np.asarray, batch)
    for r, s in np.argwhere(batch.response_mask):
        end = batch.response_end[r, s]
        assert batch.tokens[r, end] == newline
        assert end - 1 not in batch.predictor[r][batch.target_mask[r]]
