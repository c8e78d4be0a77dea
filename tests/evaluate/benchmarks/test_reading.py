"""What readers of benchmarks have in common, and the errors that name file, row and field."""

from __future__ import annotations

import pytest

from jaxrm.data.comparison import Message
from jaxrm.errors import DataError
from jaxrm.evaluate.benchmarks import reading

TURNS = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "2 + 2?"},
]


def test_a_text_is_a_users_message():
    assert reading.question({"prompt": "2 + 2?"}, "f") == (Message("user", "2 + 2?"),)
    spoken = tuple(Message(**turn) for turn in TURNS)
    assert reading.question({"prompt": TURNS}, "f") == spoken


def test_a_pair():
    found = reading.pair({"prompt": TURNS, "chosen": "4", "rejected": "5"}, "f")
    assert found["responses"] == ((Message("assistant", "4"),), (Message("assistant", "5"),))
    assert found["ranks"] == (0, 1)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": "4", "rejected": "5"}, "a.jsonl, row 3: field 'prompt': missing"),
        ({"prompt": "2 + 2?", "rejected": "5"}, "a.jsonl, row 3: field 'chosen': missing"),
        ({"prompt": "2 + 2?", "chosen": "4"}, "a.jsonl, row 3: field 'rejected': missing"),
        ({"prompt": 7, "chosen": "4", "rejected": "5"}, "field 'prompt': expected a list"),
        ({"prompt": "?", "chosen": 4, "rejected": "5"}, "field 'chosen': expected text"),
    ],
)
def test_bad_rows(row, problem):
    with pytest.raises(DataError, match=problem):
        reading.pair(row, "a.jsonl, row 3")


def test_the_column_names_the_subset_else_the_part_does():
    known = {"math": 3, "chat": 4}
    assert reading.subset({"subset": "chat"}, known, "f", "math") == "chat"
    assert reading.subset({"subset": None}, known, "f", "math") == "math"
    with pytest.raises(DataError, match="f: field 'subset': missing"):
        reading.subset({}, known, "f")
    with pytest.raises(DataError, match="f: field 'subset': expected one of 'math', 'chat', found"):
        reading.subset({"subset": "code"}, known, "f")


def test_ids_are_texts():
    assert reading.identity({"id": 7}, "f", "s/1") == "7"
    assert reading.identity({"id": "x"}, "f", "s/1") == "x"
    assert reading.identity({"id": None}, "f", "s/1") == "s/1"
    with pytest.raises(DataError, match="f: field 'id': expected text, found a list"):
        reading.identity({"id": []}, "f", "s/1")
