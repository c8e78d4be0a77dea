"""Rows out of a file of JSON: lines or one array, plain or gzipped, whatever its name ends in.

A file that is something else is refused by what it is, with what to do about it.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import IO

from jaxrm.data.comparison import kind
from jaxrm.data.fields import Row
from jaxrm.errors import DataError

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
HEAD = 512
"""Bytes of a file by which it is told."""

OTHERS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a git-LFS pointer, which stands for the file: run `git lfs pull` where it was cloned, or "
        "download the file itself",
    ),
    (b"<", "HTML or XML, such as a site sends in a file's place: download the file itself"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"BZh", "compressed with bzip2: unpack it"),
    (b"\xfd7zXZ", "compressed with xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it"),
)
"""How files begin that users take for JSON or Parquet, what they are, and what to do."""

AS_TABLE = "put it into a directory of its own and name that, or write its rows as JSON lines"
"""What to do with a table of text."""

_SPACE = re.compile(r"[ \t\r\n]*")


def json_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, Row]]:
    """The rows of an open file, each with its number: of the line, or of the array's item, from 1.

    Raises:
        DataError: the file is no JSON, or damaged, or a row is no object or has a key twice,
            naming the file and the row.
    """
    number = 0
    try:
        with _unzipped(buffered(file)) as plain:
            head = plain.peek(HEAD)
            refuse_others(head, name)
            start = head.removeprefix(BOM).lstrip()
            each = _items(plain, name) if start.startswith(b"[") else _lines(plain, name)
            for number, row in each:
                yield number, row
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{name}: damaged gzip after row {number}: {error}") from error


def json_row(line: bytes, where: str) -> Row:
    """The object in a line, no key of which occurs twice. Raises DataError naming `where`."""
    return _object(_decoded(line, where), where)


def buffered(file: IO[bytes]) -> io.BufferedReader:
    """The file with a `peek`."""
    return file if hasattr(file, "peek") else io.BufferedReader(file)


def refuse_others(head: bytes, name: str) -> None:
    """Raises DataError where a file's first bytes say that it holds neither JSON nor Parquet."""
    start = head.removeprefix(BOM).lstrip()
    for begin, problem in OTHERS:
        if start.startswith(begin):
            raise DataError(f"{name}: is {problem}")
    if b"\0" in head[:2]:
        raise DataError(f"{name}: is UTF-16 text or no text at all: save it as UTF-8")


def _unzipped(file: io.BufferedReader) -> io.BufferedReader | gzip.GzipFile:
    return gzip.open(file) if file.peek(2).startswith(GZIP) else file


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[int, Row]]:
    first = True
    for number, line in enumerate(file, start=1):
        row = line.removeprefix(BOM if number == 1 else b"").strip()
        if not row:
            continue
        try:
            parsed = json_row(row, f"{name}, row {number}")
        except DataError as error:
            if first and (told := _told(row)):
                raise DataError(f"{name}: is {told}") from error
            raise
        first = False
        yield number, parsed


def _told(line: bytes) -> str:
    """What a file may be that begins with this line, which is no row, and what to do, or ""."""
    if line == b"{":
        return "one JSON object over many lines: write a row a line, or an array of rows"
    separators = {b"\t": "TSV", b",": "CSV"}
    table = next((name for mark, name in separators.items() if mark in line), "")
    if not table or not line[:1].isascii() or line.startswith((b"{", b"[")):
        return ""
    return f"{table}, it seems, for it begins {line[:40].decode('utf-8', 'replace')!r}: {AS_TABLE}"


def _items(file: IO[bytes], name: str) -> Iterator[tuple[int, Row]]:
    """Of an array: its text is in memory whole, its rows one by one."""
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 at byte {error.start}") from error
    number, at = 0, _past_space(text, text.index("[") + 1)
    going = text[at : at + 1] != "]"
    while going:
        number += 1
        where = f"{name}, row {number}"
        try:
            item, at = _DECODER.raw_decode(text, _past_space(text, at))
        except (_Twice, ValueError, RecursionError) as error:
            raise _fault(error, where, "an item of a JSON array") from error
        yield number, _object(item, where)
        at = _past_space(text, at)
        going = text[at : at + 1] == ","
        at += going
    if text[at : at + 1] != "]" or text[at + 1 :].strip():
        problem = "its JSON array is cut short, or followed by something else, after row"
        raise DataError(f"{name}: {problem} {number}")


def _past_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _decoded(line: bytes, where: str) -> object:
    try:
        return _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start} of the line") from error
    except (_Twice, ValueError, RecursionError) as error:
        raise _fault(error, where, "a line of JSON") from error


def _object(value: object, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {kind(value)}")
    return value


def _fault(error: Exception, where: str, wanted: str) -> DataError:
    if isinstance(error, _Twice):
        problem = f"key {error.args[0]!r} occurs twice in one object: leave one of them"
        return DataError(f"{where}: {problem}")
    return DataError(f"{where}: not {wanted}: {error}")


class _Twice(Exception):
    """A key that an object has twice, of which `json` would keep the last without a word."""


def _once(pairs: list[tuple[str, object]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
