"""A language model's verdicts: what it is shown, and what is read of it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.special

from jaxrm import parallel
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from jaxrm.huggingface import hub
from jaxrm.methods import verdicts
from jaxrm.models import heads
from jaxrm.read.reading import read
from tests.messages_oracle import FOLDER

PAIR = Comparison((Message("user", "why?"),), tuple((Message("assistant", a),) for a in "xy"))


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


@pytest.fixture(scope="module")
def options():
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    return lambda trees: {"mesh": mesh, "rows": 1, "row_length": 256}


@pytest.fixture(scope="module")
def model():
    return hub.load_language_model(FOLDER)


def test_the_question_by_hand():
    found = verdicts.which_is_better(PAIR)
    assert found.prompt == (
        Message(
            "user",
            "Which of two answers is better? Reply with A or B alone.\n\n"
            "[Conversation]\nuser: why?\n\n[Answer A]\nx\n\n[Answer B]\ny",
        ),
    )
    assert found.responses == ((Message("assistant", "A"),), (Message("assistant", "B"),))
    raw = verdicts.which_is_better(Comparison("Say ", ("x", "y")))
    assert "[Conversation]\nSay \n\n[Answer A]\nx\n" in raw.prompt[0].content


def test_a_verdict_weighs_its_first_token_against_the_other_s(model, tokenizer, options):
    def ask(pair):
        said = f"{pair.responses[0][0].content} or {pair.responses[1][0].content}: "
        return Comparison(said, ("A because", "B"))

    judge = verdicts.of_language_model(model, tokenizer, ask, options)
    [found] = judge([PAIR])
    # Each letter with nothing after it: of raw text, log-probs of the letter and of EOS.
    alone = Comparison("x or y: ", ("A", "B"))
    [tree] = chat.tokenize([alone], tokenizer)
    assert [branch.targets.sum() for branch in tree.branches] == [2, 2]

    [logps] = read(model, [tree], {"all": heads.response_logps}, ask="all", **options([]))["all"]
    ends = [letter_end(model, tree, k, options) for k in range(2)]
    assert found == pytest.approx(scipy.special.expit(np.diff(ends - logps)[0]), abs=1e-5)
    assert abs(found - 0.5) > 1e-3
    assert judge([]).shape == (0,)


def letter_end(model, tree, k, options):
    """The log-prob of the EOS after response k of a tree, whose letter is put into the prompt."""
    branch = tree.branches[k]
    prompt = np.concatenate([tree.prompt, branch.tokens[:-1]])
    after = type(branch)(branch.tokens[-1:], branch.targets[-1:])
    moved = type(tree)(prompt, (after,))
    [logps] = read(model, [moved], {"all": heads.response_logps}, ask="all", **options([]))["all"]
    return logps[0]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (("aaa", "aaa b"), "both verdicts begin with one and the same token"),
        (("A",), "asked for one of two verdicts"),
        (("A", "B", "C"), "asked for one of two verdicts"),
    ],
)
def test_what_is_no_question_is_refused(model, tokenizer, options, said, problem):
    def ask(pair):
        return Comparison("Which? ", said)

    with pytest.raises(DataError, match=problem):
        verdicts.of_language_model(model, tokenizer, ask, options)([PAIR])
