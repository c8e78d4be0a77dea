"""Every fault that the audit finds is taken out under one reason, and nothing else is."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data import sources
from jaxrm.data.audit import cleaning, contents, overlap
from jaxrm.data.audit.cleaning import Cleaned, Fault, clean
from jaxrm.data.comparison import Comparison, Message, Step

QUESTION = "How do volcanoes form, and why do some of them erupt without any warning?"
NEAR_COPY = "How do volcanoes form, and why do some of those erupt without any warning?"
FILL = ["Name three primes", "Who wrote Emma?", "Rhyme on blue", "Is tea a herb?", "2 + 2?"]


def ranked(prompt, name, **ranks):
    """Raw text responses by name, each with its rank."""
    return Comparison(prompt, tuple(ranks), ranks=tuple(ranks.values()), id=name)


def asked(prompt, name="row", chosen="yes", rejected="no"):
    return Comparison.pair([Message("user", prompt)], chosen, rejected, id=name)


def faults(comparisons, *evaluations):
    """By id, the reason and its cause."""
    corpora = [overlap.Corpus(evaluation) for evaluation in evaluations]
    taken = clean(comparisons, corpora).taken
    return {comparison.id: dataclasses.astuple(fault) for comparison, fault in taken}


def test_each_reason_names_its_cause():
    rows = [
        asked(QUESTION.upper(), "copied"),
        asked(NEAR_COPY, "close"),
        *(asked(text, text) for text in FILL),
        asked("Why?", "blank answer", rejected="\n"),
        asked(" ", "blank prompt"),
        asked("Why?", "one answer", chosen="so", rejected="so"),
        ranked("p", "even", a=1, b=1),
        ranked("p", "ab", a=0, b=1),
        ranked("p", "ba", b=0, a=1),
        ranked("q", "first", a=0, b=1),
        ranked("q", "again", b=9, a=2),
    ]
    evaluation = [asked(QUESTION, "eval/1"), asked("Something else altogether", "eval/2")]
    assert faults(rows, [asked("Not in the source", "other")], evaluation) == {
        "copied": ("same", "eval/1"),
        "close": ("near", "eval/1"),
        "blank answer": ("empty", None),
        "blank prompt": ("empty", None),
        "one answer": ("identical", None),
        "even": ("tie", None),
        "ab": ("contradiction", "ba"),
        "ba": ("contradiction", "ab"),
        "again": ("duplicate", "first"),
    }
    assert clean(rows).counts() == {
        "read": 15, "same": 0, "near": 0, "empty": 2, "identical": 1, "tie": 1,
        "contradiction": 2, "duplicate": 1, "kept": 8,
    }  # fmt: skip


def test_a_comparison_with_several_faults_has_the_first_of_them():
    leaks = [asked(QUESTION, "blank", "", ""), asked(QUESTION, "twice"), asked(QUESTION, "twice")]
    evaluation = [asked(QUESTION, "e")]
    assert [fault for _, fault in clean(leaks, [overlap.Corpus(evaluation)]).taken] == [
        Fault("same", "e")
    ] * 3
    rows = [asked("Why?", "a", " ", " "), ranked("p", "b", a=0, b=0)]
    rows += [Comparison("p", ("a", "a"), ranks=(0, 0), id="c")]
    assert faults(rows) == {"a": ("empty", None), "b": ("tie", None), "c": ("identical", None)}


def test_a_prompt_is_filed_under_the_evaluation_prompt_that_is_most_like_it():
    rows = [asked(NEAR_COPY, "row"), *(asked(text, text) for text in FILL)]
    near, same = asked(QUESTION, "near"), asked(NEAR_COPY, "same")
    assert faults(rows, [near], [same], [asked(NEAR_COPY, "later")])["row"] == ("same", "same")
    assert faults(rows, [near, same])["row"] == ("same", "same")
    assert faults(rows, [near])["row"] == ("near", "near")


def test_the_minority_goes_and_of_an_even_split_both():
    rows = [
        ranked("p", "p1", a=0, b=1),
        ranked("p", "p2", b=0, a=1),
        ranked("p", "p3", a=0, b=1),  # a second judge, and then a duplicate
        ranked("q", "q1", a=0, b=1),
        ranked("r", "r1", b=0, a=1),  # another question
        ranked("s", "s1", a=0, b=1, c=2),
        ranked("s", "s2", c=0, a=1, d=2),
        ranked("s", "s3", a=0, d=1),
        ranked("s", "s4", b=0, a=1),
    ]
    assert faults(rows) == {
        "p2": ("contradiction", "p1"),
        "p3": ("duplicate", "p1"),
        "s1": ("contradiction", "s2"),
        "s2": ("contradiction", "s1"),
        "s4": ("contradiction", "s1"),
    }


def test_what_is_taken_out_has_no_vote():
    rows = [ranked("p", "kept", a=0, b=1), Comparison("p", ("b", "a", " "), (0, 1, 2), id="blank")]
    assert faults(rows) == {"blank": ("empty", None)}


def test_what_is_no_fault_stays():
    circle = [ranked("p", "1", a=0, b=1), ranked("p", "2", b=0, c=1), ranked("p", "3", c=0, a=1)]
    unlabelled = [Comparison("p", ("a",), id="single"), Comparison("p", ("a", "b"), id="unranked")]
    evaluation = [asked(f"He asked me: {QUESTION} And then he left for ever, in tears.", "e")]
    quoting = asked(f"Once upon a time, she said: {QUESTION} Nobody ever found out.", "quoting")
    corpus = overlap.Corpus(evaluation)
    rows = [*circle, *unlabelled, quoting, Comparison.pair("", "a", "b", id="all in the response")]
    (match,) = overlap.overlap(corpus, overlap.Corpus(rows)).matches
    assert match.kind == "passage"
    assert clean(rows, [corpus]) == Cleaned(tuple(rows), ())


def test_prompts_that_become_near_when_copies_are_gone_go_too():
    # With the copy, its five words are in 2 of 10 documents of the source: 5 ln(11/2) of
    # 5 ln(11/2) + ln(11) is .78; without it they are as rare as the sixth word: 5/6.
    rows = [asked("u v w x y", "copy"), asked("u v w x y z", "close")]
    rows += [asked(f"fill{i}", f"fill{i}") for i in range(8)]
    evaluation = [asked("u v w x y", "e"), *(asked(f"other{i}") for i in range(9))]
    found = overlap.overlap(overlap.Corpus(evaluation), overlap.Corpus(rows))
    assert [copy.source for copy in found.copies] == ["copy"]
    assert faults(rows, evaluation) == {"copy": ("same", "e"), "close": ("near", "e")}


PROMPTS = st.one_of(
    st.lists(st.sampled_from("abcdefgh"), max_size=6).map(" ".join),
    st.lists(st.sampled_from("abcdefgh"), max_size=6).map(
        lambda letters: (Message("user", " ".join(letters)),)
    ),
)


@st.composite
def small(draw):
    """A comparison of few prompts and responses, so that faults are frequent."""
    prompt = draw(PROMPTS)
    texts = draw(st.lists(st.sampled_from(["x", "y", "z", " "]), min_size=1, max_size=3))
    if not isinstance(prompt, str):
        texts = [(Message("assistant", text),) for text in texts]
    ranks = st.lists(st.integers(0, 2), min_size=len(texts), max_size=len(texts)).map(tuple)
    return Comparison(prompt, tuple(texts), draw(st.none() | ranks))


def named(stem, comparisons):
    return [dataclasses.replace(c, id=f"{stem}/{i}") for i, c in enumerate(comparisons)]


DATA_SETS = st.lists(small(), min_size=1, max_size=12)


@given(DATA_SETS, st.lists(st.integers(0, 11), max_size=6), st.lists(DATA_SETS, max_size=2))
def test_no_fault_is_left_and_none_is_made_up(rows, planted, evaluations):
    rows = named("row", rows + [rows[i % len(rows)] for i in planted])
    evaluations = [named(f"eval{i}", rows) for i, rows in enumerate(evaluations)]
    corpora = [overlap.Corpus(rows) for rows in evaluations]
    cleaned = clean(rows, corpora)

    place = {comparison.id: i for i, comparison in enumerate(rows)}
    parts = cleaned.kept, [comparison for comparison, _ in cleaned.taken]
    assert collections.Counter([*parts[0], *parts[1]]) == collections.Counter(rows)
    for part in parts:
        assert [place[c.id] for c in part] == sorted(place[c.id] for c in part)
    counts = cleaned.counts()
    assert list(counts) == ["read", *cleaning.REASONS, "kept"]
    assert counts["read"] == len(rows) == sum(counts.values()) - counts["read"]

    assert clean(cleaned.kept, corpora) == Cleaned(cleaned.kept, ())
    faulty = ("tie", "identical_responses", "empty_responses", "empty_prompts", "duplicates")
    if cleaned.kept:
        found = contents.count(cleaned.kept) | contents.consistency(cleaned.kept)
        assert [found[kind] for kind in (*faulty, "contradicted_pairs")] == [0] * 6
    for corpus in corpora:
        assert overlap.overlap(corpus, overlap.Corpus(cleaned.kept)).copies == ()

    by_id = {c.id: c for c in itertools.chain(rows, *evaluations)}
    for comparison, fault in cleaned.taken:
        both = [comparison, *([by_id[fault.because_of]] if fault.because_of else [])]
        found = contents.count(both) | contents.consistency(both)
        match fault.reason:
            case "same":
                source, evaluation = (set(overlap.Corpus([c]).documents) for c in both)
                assert source & evaluation
            case "near":
                assert fault.because_of.startswith("eval")
            case "empty":
                assert found["empty_responses"] or found["empty_prompts"]
            case "identical":
                assert found["identical_responses"]
            case "tie":
                assert found["tie"]
            case "contradiction":
                assert found["contradicted_pairs"]
            case "duplicate":
                assert found["duplicates"]
                assert place[fault.because_of] < place[comparison.id]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def labelled(draw):
    """A comparison with any of the fields."""
    size = draw(st.integers(1, 3))

    def each(values):
        return st.none() | st.lists(values, min_size=size, max_size=size).map(tuple)

    texts = draw(st.lists(TEXTS, min_size=size, max_size=size))
    steps = [(Step(len(text), draw(st.none()) or math.nan),) if text else () for text in texts]
    prompt = draw(TEXTS)
    responses = texts
    if draw(st.booleans()):
        prompt = (Message("system", draw(TEXTS)), Message("user", prompt))
        responses = [(Message("assistant", text),) for text in texts]
    grades = st.tuples(NUMBERS, st.just(math.nan))
    return Comparison(
        prompt,
        tuple(responses),
        ranks=draw(each(st.integers(0, 3))),
        scores=draw(each(NUMBERS)),
        margin=draw(NUMBERS),
        attributes=draw(each(grades)),
        steps=draw(st.none() | st.just(tuple(steps))),
        subset=draw(TEXTS),
    )


@given(st.lists(labelled(), min_size=1, max_size=4), st.lists(labelled(), min_size=1, max_size=2))
def test_both_files_read_back_as_what_was_written(kept, taken):
    kept, taken = named("kept", kept), named("taken", taken)
    causes = [Fault("duplicate", "kept/0"), *[Fault("tie")] * (len(taken) - 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clean.jsonl"
        cleaning.write(Cleaned(tuple(kept), tuple(zip(taken, causes, strict=True))), path)
        read = sources.read(path), sources.read(path.with_name("clean.taken.jsonl"))
        told = path.with_name("clean.taken.jsonl").read_text("utf-8").split("\n")[:-1]
    assert [[dataclasses.replace(c, where="") for c in part] for part in read] == [kept, taken]
    columns = [{name: json.loads(row)[name] for name in ("reason", "because_of")} for row in told]
    assert columns == list(map(dataclasses.asdict, causes))


def test_neither_file_is_replaced_if_one_cannot_be_written(tmp_path):
    path = tmp_path / "clean.jsonl"
    names = [path, cleaning.taken_path(path)]
    for name in names:
        name.write_text("as it was")
    unwritable = asked("b")
    object.__setattr__(unwritable, "margin", math.nan)
    with pytest.raises(ValueError, match="not JSON compliant"):
        cleaning.write(Cleaned((asked("a"),), ((unwritable, Fault("tie")),)), path)
    assert [name.read_text() for name in names] == ["as it was"] * 2
    assert sorted(tmp_path.iterdir()) == sorted(names)
