"""Files become comparisons, or an error that names the file, the row and the field."""

from __future__ import annotations

import gzip
import json
import math

import pyarrow
import pyarrow.parquet
import pytest

from jaxrm.data import sources
from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError
from tests.shared_data import shared

ASK = {"role": "user", "content": "2 + 2?"}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = {"prompt": [ASK], "chosen": "4", "rejected": "5"}
PROMPT = (Message("user", "2 + 2?"),)


def says(content):
    return {"role": "assistant", "content": content}


def turn(content):
    return (Message("assistant", content),)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def read_one(tmp_path, row):
    (comparison,) = sources.read(write(tmp_path / "one.jsonl", row))
    return comparison


def test_our_pairs(tmp_path):
    row = GOOD | {"id": "a/1", "subset": "sums", "source": "me", "margin": 3, "license": "MIT"}
    path = write(tmp_path / "pairs.jsonl", row | {"chosen_score": 4, "rejected_score": 1.5}, GOOD)
    first, second = sources.read(path)
    assert first == Comparison(
        PROMPT,
        (turn("4"), turn("5")),
        ranks=(0, 1),
        scores=(4, 1.5),
        margin=3,
        subset="sums",
        id="a/1",
        where=f"{path}, row 1",
    )
    assert (second.id, second.margin, second.scores) == ("pairs/2", 0.0, None)


def test_any_number_of_responses(tmp_path):
    row = {"prompt": [ASK], "responses": ["4", "5", [says("four")]]}
    labels = {"ranks": [0, 1, 0], "scores": [1, 0, 0.5], "attributes": [[1, None], [0, 2], [0, 0]]}
    known = read_one(tmp_path, row | labels)
    assert known.responses == (turn("4"), turn("5"), turn("four"))
    assert (known.ranks, known.scores) == ((0, 1, 0), (1, 0, 0.5))
    assert math.isnan(known.attributes[0][1])
    assert known.attributes[1] == (0, 2)
    unknown = read_one(tmp_path, {"prompt": "Once", "responses": [" upon"], "ranks": None})
    assert unknown == Comparison("Once", (" upon",), id="one/1", where=unknown.where)


@pytest.mark.parametrize(
    ("row", "prompt", "responses"),
    [
        ({"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}, "The sky is", None),
        ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "The sky is", None),
        ({"chosen": "bluer", "rejected": "greener"}, "", ("bluer", "greener")),
        ({"chosen": "to be", "rejected": "to be or not"}, "to b", ("e", "e or not")),
        ({"prompt": [ASK], "chosen": [says("4")], "rejected": [says("5")]}, PROMPT, None),
        ({"chosen": [ASK, says("4")], "rejected": [ASK, says("5")]}, PROMPT, None),
        ({"chosen": [ASK, says("4")], "rejected": [ASK, says("4")]}, PROMPT, (turn("4"),) * 2),
    ],
)
def test_the_four_forms_of_trl(tmp_path, row, prompt, responses):
    pair = read_one(tmp_path, row)
    if responses is None:
        texts = (" blue.", " green.") if isinstance(prompt, str) else ("4", "5")
        responses = texts if isinstance(prompt, str) else tuple(turn(text) for text in texts)
    assert (pair.prompt, pair.responses, pair.ranks) == (prompt, responses, (0, 1))


def test_an_implicit_prompt_ends_before_the_answers_part(tmp_path):
    again = {"role": "user", "content": "Sure?"}
    row = {"chosen": [ASK, says("4"), again, says("yes")]}
    split = read_one(tmp_path, row | {"rejected": [ASK, says("4"), again, says("no")]})
    assert [message.content for message in split.prompt] == ["2 + 2?", "4", "Sure?"]
    twice = read_one(
        tmp_path,
        {"chosen": [ASK, says("4"), says("!")], "rejected": [ASK, says("4"), says("?")]},
    )
    assert twice.prompt == PROMPT
    assert twice.responses[0] == turn("4") + turn("!")


def test_gzip_parquet_and_plain_text_read_alike(tmp_path):
    rows = [GOOD | {"id": str(i), "attributes": [[1.0, None], [0.0, 2.0]]} for i in range(3)]
    plain = write(tmp_path / "rows.jsonl", *rows)
    zipped = tmp_path / "rows.jsonl.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    marked = tmp_path / "marked.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n\r\n"))

    def contents(path):
        return [(c.prompt, c.responses, c.id, str(c.attributes)) for c in sources.read(path)]

    assert len(contents(plain)) == 3
    assert contents(plain) == contents(zipped) == contents(table) == contents(marked)
    assert sources.read(marked)[1].where == f"{marked}, row 3"


@pytest.mark.parametrize(
    ("field", "problem", "row"),
    [
        ("chosen", "missing", {"prompt": [ASK], "rejected": "5"}),
        ("chosen", "expected text or a list of messages, found null", GOOD | {"chosen": None}),
        ("chosen", "messages, found a int", GOOD | {"chosen": 4}),
        ("chosen[0]", "found text", GOOD | {"chosen": ["4", "four"]}),
        (
            "chosen[0].role",
            "'tool' is not one of",
            GOOD | {"chosen": [says("4") | {"role": "tool"}]},
        ),
        ("chosen", "must end with an assistant message, not user", GOOD | {"chosen": [ASK]}),
        ("prompt", "expected a list, found text", GOOD | {"prompt": "2 + 2?"}),
        ("prompt", "non-empty", GOOD | {"prompt": []}),
        ("prompt[0].content", "found a list", GOOD | {"prompt": [ASK | {"content": ["hi"]}]}),
        ("prompt[1].content", "missing", GOOD | {"prompt": [ASK, {"role": "user"}]}),
        ("margin", "finite, found nan", GOOD | {"margin": math.nan}),
        ("margin", "found text", GOOD | {"margin": "3"}),
        ("rejected_score", "found null", GOOD | {"chosen_score": 1.0}),
        ("chosen_score", "finite", GOOD | {"chosen_score": math.inf, "rejected_score": 0}),
        ("attributes", "3 entries for 2", GOOD | {"attributes": [[1]] * 3}),
        ("attributes[1]", "expected a list", GOOD | {"attributes": [[1], 2]}),
        ("id", "found a float", GOOD | {"id": 1.5}),
    ],
)
def test_a_bad_field_of_a_later_row_is_named(tmp_path, field, problem, row):
    path = write(tmp_path / "pairs.jsonl", GOOD, row)
    with pytest.raises(DataError) as caught:
        sources.read(path)
    assert str(caught.value).startswith(f"{path}, row 2: field '{field}': ")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", None, "does not exist"),
        ("a.json", b"[]", "not a preference file: use .jsonl, .jsonl.gz, .parquet"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.jsonl", b'\n{"prompt": ', "row 2: not a line of JSON"),
        ("a.jsonl", b"[" * 100_000, "row 1: not a line of JSON"),
        ("a.jsonl", b"[1]", "row 1: expected a JSON object, found a list"),
        ("a.jsonl", b'{"text": "\xff"}', "row 1: not UTF-8"),
        ("a.jsonl", b'{"text": "hi"}', "row 1: unknown form: columns are text; expected prompt +"),
        ("a.jsonl", b'{"prompt": "a", "responses": []}', "row 1: field 'responses'"),
        (
            "a.jsonl",
            json.dumps({"chosen": [ASK, says("4")], "rejected": [SYSTEM, ASK, says("5")]}).encode(),
            "row 1: field 'chosen': shares no first message",
        ),
        ("a.jsonl.gz", b"plainly not gzip", "damaged gzip after row 0"),
        ("a.jsonl.gz", gzip.compress(json.dumps(GOOD).encode(), mtime=0)[:-9], "damaged gzip"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "damaged gzip after row 0"),
        ("a.parquet", b"PAR1 but not really PAR1", "damaged Parquet after row 0"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, problem):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        sources.read(path)
    assert str(caught.value).startswith(str(path))
    assert problem in str(caught.value)


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(DataError, match="is not a file"):
        sources.read(tmp_path / "a.jsonl")


def test_parquet_text_that_is_not_utf8_names_its_row(tmp_path):
    path = tmp_path / "a.parquet"
    broken = pyarrow.array([b"4", b"\xff"]).view(pyarrow.string())
    columns = {"prompt": ["a", "b"], "chosen": broken, "rejected": ["5", "5"]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match="row 2: holds text that is not UTF-8"):
        sources.read(path)


def test_real_files():
    pairs = sources.read(shared("sample", "pairs_64.jsonl"))
    assert len(pairs) == 64
    assert {pair.ranks for pair in pairs} == {(0, 1)}
    many = sources.read(shared("eval", "bon_tulu2_13b.jsonl.gz"))
    assert {len(comparison.responses) for comparison in many} == {11}
    assert {comparison.ranks for comparison in many} == {None}
