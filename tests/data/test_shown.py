"""What the model reads, shown: every character of it, the targets, and the place of the reward."""

from __future__ import annotations

import re

import pytest

from jaxrm.data import chat, shown
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from tests.data.tokenizer_kinds import KINDS, write
from tests.messages_oracle import FOLDER


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


def show(comparison, tokenizer):
    [tree] = chat.tokenize([comparison], tokenizer)
    return shown.text(comparison, tree, tokenizer)


def test_a_conversation_by_hand(tokenizer):
    asked = (Message("user", "Why?\n  So?"),)
    answers = ((Message("assistant", "Figs."),), (Message("assistant", "No\there."),))
    found = show(
        Comparison(asked, answers, ranks=(1, 0), scores=(0.5, 2.0), where="in, row 3", id="a"),
        tokenizer,
    )
    assert re.sub(r"\d+ token", "N token", found) == (
        "=== in, row 3 (id a): 2 responses\n"
        "--- prompt, N tokens\n"
        "<bos><start_of_turn>user⏎\nWhy?⏎\n··So?<end_of_turn>⏎\n<start_of_turn>model⏎\n\n"
        "--- response 0, rank 1, score 0.5, N tokens\n"
        "«Figs.<end_of_turn>»⏎\n◀ reward\n"
        "--- response 1, rank 0, score 2, N tokens\n"
        "«No⇥here.<end_of_turn>»⏎\n◀ reward\n"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [" the 12", "the ", "é ☃", ""])
def test_no_character_of_any_tokenizer_s_text_is_lost(kind, answer, tmp_path):
    write(kind, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    comparison = Comparison("a the", (answer, " c"))
    [tree] = chat.tokenize([comparison], tokenizer)
    branch = tree.branches[0]
    stretches = list(shown._stretches(tree.prompt, branch, tokenizer))
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    before = tokenizer.hf.decode(tree.prompt, **options)
    whole = tokenizer.hf.decode([*tree.prompt, *branch.tokens], **options)
    assert before + "".join(said for _, said in stretches) == whole
    assert stretches[-1][0]
    assert whole.endswith("</s>")


def test_turns_between_the_targets_are_none(tokenizer):
    turns = tuple(Message(role, text) for role, text in (("assistant", "A."), ("user", "And?")))
    found = show(
        Comparison((Message("user", "Q?"),), ((*turns, Message("assistant", "B.")),)), tokenizer
    )
    assert found.endswith(
        "tokens\n«A.<end_of_turn>»⏎\n<start_of_turn>user⏎\nAnd?<end_of_turn>⏎\n"
        "<start_of_turn>model⏎\n«B.<end_of_turn>»⏎\n◀ reward\n"
    )


def test_the_middle_of_what_is_long_is_counted(tokenizer):
    middle = shown.LONGEST + 34
    asked = (Message("user", "x" * 10),)
    answer = "a" * 600 + "b" * (middle - 600 - 600) + "c" * 600
    comparison = Comparison(asked, ((Message("assistant", answer),),) * 21)
    found = show(comparison, tokenizer)
    # With the end of the turn a stretch has 13 characters more.
    assert "«" + "a" * 600 + "\n[... 47 characters are left out here ...]\n" in found
    assert found.count("--- response ") == shown.MOST
    assert "--- response 3, 1" in found
    assert "--- 13 responses are left out here\n--- response 17, " in found
