"""JSON of any shape and packing is read, and what is none is refused as what it is."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.json_rows import json_rows
from jaxrm.errors import DataError

NAME = "data/a.jsonl"
ROWS = [{"text": "a ü", "turns": [{"n": 1}, None]}, {"text": None}, {}]
ARRAY = json.dumps(ROWS, indent=2).encode()
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def read(content):
    return list(json_rows(io.BytesIO(content), NAME))


def refused(content):
    with pytest.raises(DataError) as caught:
        read(content)
    return str(caught.value)


@pytest.mark.parametrize("content", [LINES, ARRAY, b"\n " + ARRAY + b"\n", b"\r\n" + LINES])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_lines_and_arrays_plain_or_packed_are_the_same_rows(content, mark, packed):
    found = read(packed(mark + content))
    assert [row for _, row in found] == ROWS
    first = 2 if content.startswith(b"\r\n") else 1
    assert [number for number, _ in found] == [first, first + 1, first + 2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4), st.booleans())
def test_any_array_is_read_as_the_lines_of_its_items(rows, spread):
    content = json.dumps(rows, indent=1 if spread else None).encode()
    assert [row for _, row in read(content)] == rows


def test_the_rows_of_an_array_come_one_by_one():
    found = json_rows(io.BytesIO(b'[{"a": 1}, {"a": '), NAME)
    assert next(found) == (1, {"a": 1})
    with pytest.raises(DataError, match="row 2: not an item of a JSON array"):
        next(found)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[1]", ", row 1: expected a JSON object, found a int"),
        (b"[" * 100_000, ", row 1: not an item of a JSON array"),
        (b'[{"a": 1}', ": its JSON array is cut short, or followed by something else, after row 1"),
        (
            b"[{}]\n[{}]",
            ": its JSON array is cut short, or followed by something else, after row 1",
        ),
        (b'[{"a": "\xff"}]', ": not UTF-8 at byte 8"),
        (b"{" * 100_000, ", row 1: not a line of JSON"),
        (b'{}\n{"a": {"b": 1, "c": 2, "b": 1}}', ", row 2: key 'b' occurs twice in one object"),
        (b'[{}, [{"b": 1, "b": 1}]]', ", row 2: key 'b' occurs twice in one object"),
        (b'"text"', ", row 1: expected a JSON object, found text"),
        (b"{}\na,b", ", row 2: not a line of JSON"),
        (b'{\n "data": [{}]\n}', ": is one JSON object over many lines: write a row a line"),
        (b"prompt,chosen,rejected\n1,2,3", ": is CSV, it seems, for it begins 'prompt,chosen,rej"),
        (b'"prompt","chosen"\n', ": is CSV, it seems"),
        (b"prompt\tchosen, rejected\n", ": is TSV, it seems"),
        (b"\n<!DOCTYPE html>\n<p>", ": is HTML or XML"),
        (b"\xef\xbb\xbf<html>", ": is HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", ": is a git-LFS pointer"),
        (LINES.decode().encode("utf-16"), ": is UTF-16 text: save it as UTF-8"),
        (LINES.decode().encode("utf-16-le"), ": is UTF-16 text or no text at all"),
        (LINES.decode().encode("utf-16-be"), ": is UTF-16 text or no text at all"),
        (b"PK\x03\x04...", ": is a zip archive: unpack it"),
        (b"\x28\xb5\x2f\xfd...", ": is compressed with zstd: unpack it"),
        (gzip.compress(b"<html>", mtime=0), ": is HTML or XML"),
        (gzip.compress(LINES, mtime=0)[:-9], ": damaged gzip after row"),
    ],
)
def test_what_is_no_row_says_what_it_is(content, problem):
    assert refused(content).startswith(NAME + problem)


def test_no_rows_are_no_fault():
    assert read(b"") == read(b"\n\n") == read(b" [ ] \n") == []
