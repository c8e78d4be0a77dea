"""Training drops what teaches nothing, shortens what it was told to, and counts all of it."""

from __future__ import annotations

import dataclasses
import json
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxrm.data import packing, training
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tally import Tally
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.data.training import training_set
from jaxrm.errors import DataError

# A message is the initial of its role, its text and <eos>.
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m.role[0] }}{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}a{% endif %}"
)
BOS, EOS = 0, 1
ASK = (Message("user", "2 + 2?"),)  # 10 tokens: <bos>u2 + 2?<eos>a
GOOD = Comparison.pair(ASK, "4", "5")


def bytewise(bos):
    """A tokenizer whose tokens are the bytes of a text, an <eos>, and a <bos> if so asked."""
    words = ["<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    named = {"eos_token": "<eos>", "chat_template": TEMPLATE}
    if bos:
        named["bos_token"] = "<bos>"
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", BOS)]
        )
    return ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named))


TOKENIZER, WITHOUT_BOS = bytewise(bos=True), bytewise(bos=False)


def made(*comparisons, tokenizer=TOKENIZER, max_length=20, row_length=29, truncate=False):
    """The training set of `comparisons`, each shown once."""
    limits = {"max_length": max_length, "row_length": row_length, "truncate_prompt": truncate}
    return training_set([(comparisons, 1.0)], tokenizer, **limits)


def text(tokens):
    return TOKENIZER.hf.decode(tokens)


@pytest.mark.parametrize(
    ("reason", "comparison"),
    [
        (None, GOOD),
        (None, Comparison.pair(ASK, "4" * 9, "5" * 8)),
        ("over-length", Comparison.pair(ASK, "4" * 10, "5")),
        ("over-row", Comparison.pair(ASK, "4" * 9, "5" * 9)),
        (None, Comparison.pair(ASK, "4", "44")),
        ("identical", Comparison.pair(ASK, "4", "4")),
        ("identical", Comparison("a", tuple("bcb"), ranks=(1, 1, 0))),
        ("empty", Comparison.pair(ASK, "4", " \n")),
        ("empty", Comparison.pair([Message("user", "")], "4", "5")),
        (None, Comparison.pair([Message("system", ""), *ASK], "4", "5")),
        (None, Comparison.pair("", "4", "5")),
        ("empty", Comparison.pair("2 + 2 =", "4", "")),
        ("empty", Comparison.pair("a" * 99, "", "")),
        ("single", Comparison("a", ("b",), ranks=(0,))),
        ("unranked", Comparison("a", ("b", "c"))),
        ("tie", Comparison("a", ("b", "c"), ranks=(1, 1))),
        (None, Comparison("a", ("b", "c", "d"), ranks=(1, 1, 0))),
    ],
)
def test_the_first_reason_counts(reason, comparison):
    kept = made(GOOD, comparison)
    assert kept.tally.dropped == ({} if reason is None else {reason: 1})
    assert (kept.tally.read, kept.tally.used) == (2, len(kept.trees))


def test_the_tally_adds_up_and_prints_on_one_line():
    same, lone = Comparison.pair(ASK, "4", "4"), Comparison("a", ("b",))
    kept = made(same, GOOD, lone, same, Comparison.pair(ASK, "4" * 50, "5"))
    assert kept.tally == Tally(5, 1, {"identical": 2, "single": 1, "over-length": 1})
    assert text(kept.trees[0].branches[0].tokens) == "4<eos>"
    line = "read 5, used 1, dropped 4: 2 identical, 1 single, 1 over-length (--max-length)"
    assert str(kept.tally) == line
    assert str(Tally(3, 3, {})) == "read 3, used 3, dropped 0"
    assert str(Tally(4, 3, {"tie": 1}, truncated=2, folded=1)) == (
        "read 4, used 3, dropped 1: 1 tie; 2 prompts truncated; "
        "1 system message moved into the first user turn"
    )


def test_a_tally_survives_json():
    tally = Tally(9, 7, {"tie": 2}, truncated=1, folded=3)
    assert Tally(**json.loads(json.dumps(dataclasses.asdict(tally)))) == tally
    assert str(Tally(read=1, used=1, dropped={})) == "read 1, used 1, dropped 0"


def test_what_is_left_out_is_logged_with_its_rows_and_what_would_change_it(caplog):
    def at(row, chosen, rejected="5"):
        return Comparison.pair(ASK, chosen, rejected, where=row and f"a.jsonl, row {row}")

    rows = [GOOD, *(at(row, "4" * 50) for row in range(2, 7)), at(7, "5"), at(None, " ")]
    rows.append(at(9, "4" * 9, "6" * 9))
    with caplog.at_level("INFO", "jaxrm"):
        made(*rows)
    # The prompt is 10 tokens, and 50 and an <eos> follow it.
    assert [record.getMessage() for record in caplog.records] == [
        "left out of training: 5 over-length: the tokens of the prompt and one response, up to 61, "
        "exceed --max-length 20: raise it, or let --truncate-prompt shorten prompts "
        "(a.jsonl, row 2; a.jsonl, row 3; a.jsonl, row 4; and 2 more)",
        "left out of training: 1 identical: two responses are the same tokens (a.jsonl, row 7)",
        "left out of training: 1 empty: a response, or a user or assistant message of the prompt, "
        "is blank (comparison 8)",
        "left out of training: 1 over-row: the tokens of the prompt and all its responses, up to "
        "30, exceed --row-length 29: raise it, or let --truncate-prompt shorten prompts "
        "(a.jsonl, row 9)",
    ]


def test_every_reason_is_explained_and_where_all_is_left_out_the_error_does():
    ranked = Comparison("a" * 50, ("b" * 50, "c"), ranks=(0, 1), where="a.jsonl, row 1")
    others = [
        Comparison("a", ("b",), ranks=(0,)), Comparison("a", ("b", "c")),
        Comparison("a", ("b", "c"), ranks=(0, 0)),
    ]  # fmt: skip
    with pytest.raises(DataError) as caught:
        made(ranked, *others, truncate=True)
    assert str(caught.value).splitlines() == [
        "nothing left to train on: read 4, used 0, dropped 4: 1 over-length (--max-length), "
        "1 single, 1 unranked, 1 tie",
        "  1 over-length: the tokens of the prompt and one response, up to 102, exceed "
        "--max-length 20: raise it, since a shorter prompt does not make room enough "
        "(a.jsonl, row 1)",
        "  1 single: fewer than two responses, so that none is better than another (comparison 2)",
        "  1 unranked: nothing says which response is better: chosen and rejected would, or ranks "
        "(comparison 3)",
        "  1 tie: no response is labelled better than another (comparison 4)",
    ]


def test_system_messages_that_the_template_refuses_are_counted():
    system = (Message("system", "hm"), *ASK)
    kept = made(GOOD, Comparison.pair(system, "4", "5"), Comparison.pair(system, "4", "4"))
    assert (kept.tally.folded, kept.tally.dropped) == (2, {"identical": 1})
    assert text(kept.trees[1].prompt) == "<bos>uhm\n\n2 + 2?<eos>a"


@pytest.mark.parametrize(
    ("max_length", "row_length", "prompt"),
    [
        (10, 99, "<bos>abcdef"),
        (9, 99, "<bos>bcdef"),
        (8, 99, "<bos>cdef"),
        (99, 12, "<bos>abcdef"),
        (99, 10, "<bos>cdef"),
        (9, 8, "<bos>ef"),
        (5, 99, "<bos>f"),
    ],
)
def test_a_prompt_loses_its_oldest_tokens_but_not_its_bos(max_length, row_length, prompt):
    pair = Comparison.pair("abcdef", "xy", "z")  # 7 tokens of prompt, responses of 3 and 2
    limits = {"max_length": max_length, "row_length": row_length}
    (tree,) = made(pair, **limits, truncate=True).trees
    assert text(tree.prompt) == prompt
    assert [text(branch.tokens) for branch in tree.branches] == ["xy<eos>", "z<eos>"]


def test_without_a_bos_the_last_token_of_the_prompt_stays():
    pair = Comparison.pair("abcdef", "xy", "z")
    (tree,) = made(pair, tokenizer=WITHOUT_BOS, max_length=4, truncate=True).trees
    assert text(tree.prompt) == "f"
    with pytest.raises(DataError, match="1 over-length"):
        made(pair, tokenizer=WITHOUT_BOS, max_length=3, truncate=True)


@given(
    st.integers(0, 12),
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.integers(2, 20),
    st.integers(2, 30),
)
def test_truncation_takes_what_it_must_and_never_of_a_response(p, lengths, longest, row):
    prompt = "abcdefghijkl"[:p]
    responses = tuple("wxyz"[k] * n for k, n in enumerate(lengths))
    comparison = Comparison(prompt, responses, ranks=tuple(range(len(lengths))))
    taken = [n + 1 for n in lengths]
    room = min(longest - max(taken), row - sum(taken))
    limits = {"max_length": longest, "row_length": row, "truncate": True}
    if room < min(1 + p, 2):
        reason = "over-length" if 1 + p + max(taken) > longest else "over-row"
        with pytest.raises(DataError, match=f"dropped 1: 1 {reason}"):
            made(comparison, **limits)
        return
    kept = made(comparison, **limits)
    (tree,) = kept.trees
    assert len(tree.prompt) == min(1 + p, room)
    assert text(tree.prompt) == "<bos>" + prompt[1 + p - len(tree.prompt) :]
    assert tuple(text(branch.tokens[:-1]) for branch in tree.branches) == responses
    assert packing.longest_branch(tree) <= longest
    assert packing.tree_length(tree) <= row
    assert kept.tally.truncated == (1 + p > room)


def test_only_what_is_used_counts_as_truncated():
    long = "x" * 40
    kept = made(Comparison.pair(long, "4", "5"), Comparison(long, ("4",)), GOOD, truncate=True)
    assert str(kept.tally) == "read 3, used 2, dropped 1: 1 single; 1 prompt truncated"


def test_every_tree_has_the_weight_of_its_source():
    sources = [([GOOD, Comparison("a", ("b",))], 0.5), ([], 9.0), (iter([GOOD, GOOD]), 2.0)]
    kept = training_set(sources, TOKENIZER, max_length=20, row_length=30)
    np.testing.assert_array_equal(kept.weights, [0.5, 2.0, 2.0])
    assert (kept.weights.dtype, kept.prompts.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_must_say_how_often(weight):
    with pytest.raises(DataError, match="weight must be finite and above 0"):
        training_set([([GOOD], weight)], TOKENIZER, max_length=20, row_length=30)


def test_prompts_are_told_apart_by_all_of_their_tokens():
    long = "x" * 40
    asked = ["q", "r", "q", "y" + long, "z" + long, "y" + long]
    rows = [Comparison.pair(prompt, "4", f"5{i}") for i, prompt in enumerate(asked)]
    kept = made(*rows, truncate=True)
    assert kept.tally.truncated == 3
    assert text(kept.trees[3].prompt) == text(kept.trees[4].prompt)  # what was left of them
    _, numbers = np.unique(kept.prompts, return_inverse=True)
    assert len(set(numbers)) == 4
    assert numbers[0] == numbers[2]
    assert numbers[3] == numbers[5]


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WITHOUT_BOS])
def test_trees_without_a_prompt_have_none_in_common(tokenizer):
    rows = [Comparison.pair("", f"better {i}", f"worse {i}") for i in range(3)]
    kept = made(*rows, rows[0], tokenizer=tokenizer)
    assert len(set(kept.prompts.tolist())) == 3
    assert kept.prompts[0] == kept.prompts[3]


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(DataError, match="nothing left to train on: read 1, used 0, .*: 1 single"):
        made(Comparison("a", ("b",)))
    with pytest.raises(DataError, match="nothing left to train on: read 0"):
        made()


def test_comparisons_are_not_kept(monkeypatch):
    monkeypatch.setattr(training, "CHUNK", 8)
    alive, most = weakref.WeakSet(), 0

    def rows():
        nonlocal most
        for i in range(100):
            comparison = Comparison.pair("q", f"{i}", f"not {i}")
            alive.add(comparison)
            most = max(most, len(alive))
            yield comparison
            del comparison

    kept = training_set([(rows(), 1.0)], TOKENIZER, max_length=20, row_length=30)
    assert len(kept.trees) == 100
    # The chunk that is read, and of the one before at most what a variable still names.
    assert most <= 2 * 8 + 1
