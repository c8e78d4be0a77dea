"""Comparisons from local files: JSON lines, plain or gzipped, and Parquet.

A file holds one of these forms, told apart by the columns and types of its first row. Columns that
are not named here are ignored.

- pairs: `prompt` (messages), `chosen` and `rejected` (text);
- responses: `prompt` (messages or text) and `responses` (a list of texts or of lists of messages),
  optionally `ranks`, `scores`;
- TRL's four: `chosen` and `rejected` as texts or as lists of messages, each with a `prompt` of the
  same type, or without one, where the prompt is what both begin with.

Every form may also have `id`, `subset`, `margin` and `attributes` (a list of grades per response,
null for one that is not labelled), and those with a chosen response `chosen_score` and
`rejected_score`. A message is `{"role": ..., "content": ...}`.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from jaxrm.data.comparison import (
    Comparison,
    Conversation,
    Message,
    answer,
    check_answer,
    check_messages,
    check_number,
    check_text,
    common_length,
    fault,
    kind,
)
from jaxrm.errors import DataError

Row = dict[str, object]
Known = dict[str, object]
"""Fields of a Comparison, by name, apart from where its row came from."""

KNOWN_FORMS = (
    "prompt + chosen + rejected, chosen + rejected (both beginning with the prompt), "
    "or prompt + responses"
)


def read(path: str | Path) -> list[Comparison]:
    """All comparisons of a `.jsonl`, `.jsonl.gz` or `.parquet` file, in order.

    A pair has ranks (0, 1). A row without an id is named `<file's stem>/<row>`, counting from 1.
    Raises DataError naming the file, the row (a line of JSON, blank ones counted) and the field.
    """
    path = Path(path)
    suffixes = {".jsonl": _json_rows, ".jsonl.gz": _json_rows, ".parquet": _parquet_rows}
    suffix = next((s for s in suffixes if path.name.endswith(s)), None)
    if suffix is None:
        raise DataError(f"{path}: not a preference file: use {', '.join(suffixes)}")
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise DataError(f"{path}: {problem}")
    stem = path.name.removesuffix(suffix)
    comparisons, parse = [], None
    try:
        for number, row in suffixes[suffix](path):
            where = f"{path}, row {number}"
            parse = parse or _form(row, where)
            known = parse(row, where) | _common(row, where)
            known.setdefault("id", f"{stem}/{number}")
            comparisons.append(Comparison(**known, where=where))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not comparisons:
        raise DataError(f"{path}: holds no rows")
    return comparisons


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, line in enumerate(file, start=1):
                if row := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                    yield number, _json_row(row, f"{path}, row {number}")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: damaged gzip after row {number}: {error}") from error


def _json_row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a line of JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, found {kind(row)}")
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                columns = list(zip(batch.schema.names, batch.columns, strict=True))
                for i in range(batch.num_rows):
                    number += 1
                    yield number, {name: column[i].as_py() for name, column in columns}
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, row {number}: holds text that is not UTF-8") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged Parquet after row {number}: {error}") from error


def _form(row: Row, where: str) -> Callable[[Row, str], Known]:
    """The parser for files whose first row this is."""
    if {"prompt", "responses"} <= row.keys():
        return _responses
    if {"prompt", "chosen", "rejected"} <= row.keys():
        return _pair_of_messages if isinstance(row["prompt"], list) else _pair_of_texts
    if {"chosen", "rejected"} <= row.keys():
        return _joined_messages if isinstance(row["chosen"], list) else _joined_texts
    columns = ", ".join(sorted(row)) or "none"
    raise DataError(f"{where}: unknown form: columns are {columns}; expected {KNOWN_FORMS}")


def _responses(row: Row, where: str) -> Known:
    prompt = _get(row, "prompt", where)
    prompt = prompt if isinstance(prompt, str) else _messages(prompt, "prompt", where)
    given = _list(_get(row, "responses", where), "responses", where)
    responses = (
        _response(prompt, value, f"responses[{k}]", where) for k, value in enumerate(given)
    )
    known = {"prompt": prompt, "responses": tuple(responses)}
    for field in ("ranks", "scores"):
        if row.get(field) is not None:
            known[field] = tuple(_list(row[field], field, where))
    return known


def _pair_of_messages(row: Row, where: str) -> Known:
    prompt = _messages(_get(row, "prompt", where), "prompt", where)
    return _pair(row, where, prompt, *_both(row, where, lambda *at: _response(prompt, *at)))


def _pair_of_texts(row: Row, where: str) -> Known:
    prompt = _text(_get(row, "prompt", where), "prompt", where)
    return _pair(row, where, prompt, *_both(row, where, _text))


def _joined_texts(row: Row, where: str) -> Known:
    chosen, rejected = _both(row, where, _text)
    shared, shorter = common_length(chosen, rejected), min(len(chosen), len(rejected))
    if shared == shorter:  # one continues the other: as in TRL, both keep a last character
        shared = max(shorter - 1, 0)
    elif shared and chosen[shared - 1] == " ":  # most tokenizers join a space to the word after it
        shared -= 1
    return _pair(row, where, chosen[:shared], chosen[shared:], rejected[shared:])


def _joined_messages(row: Row, where: str) -> Known:
    chosen, rejected = _both(row, where, _messages)
    shared = min(common_length(chosen, rejected), len(chosen) - 1, len(rejected) - 1)
    # An answer is one whole turn, so the prompt may not end inside the assistant's.
    while (
        shared > 0
        and chosen[shared - 1].role == "assistant"
        and "assistant" in (chosen[shared].role, rejected[shared].role)
    ):
        shared -= 1
    if shared <= 0:
        problem = "shares no first message with 'rejected', so there is no prompt"
        raise fault(where, "chosen", problem)
    return _pair(row, where, chosen[:shared], chosen[shared:], rejected[shared:])


def _pair(row: Row, where: str, prompt, chosen, rejected) -> Known:
    known = {"prompt": prompt, "responses": (chosen, rejected), "ranks": (0, 1)}
    fields = ("chosen_score", "rejected_score")
    if any(row.get(field) is not None for field in fields):
        for field in fields:
            check_number(row.get(field), field, where)
        known["scores"] = tuple(row[field] for field in fields)
    return known


def _common(row: Row, where: str) -> Known:
    """What every form may say; a null counts as unsaid."""
    known = {name: row[name] for name in ("id", "subset", "margin") if row.get(name) is not None}
    if isinstance(known.get("id"), int):
        known["id"] = str(known["id"])
    if row.get("attributes") is not None:
        rows = _list(row["attributes"], "attributes", where)
        known["attributes"] = tuple(
            tuple(math.nan if value is None else value for value in _list(values, field, where))
            for field, values in ((f"attributes[{k}]", values) for k, values in enumerate(rows))
        )
    return known


def _both(row: Row, where: str, parse: Callable) -> tuple:
    return tuple(parse(_get(row, field, where), field, where) for field in ("chosen", "rejected"))


def _response(prompt: Conversation | str, value: object, field: str, where: str):
    if isinstance(value, str) or isinstance(prompt, str):
        return answer(prompt, _text(value, field, where))
    if not isinstance(value, list):
        raise fault(where, field, f"expected text or a list of messages, found {kind(value)}")
    messages = _messages(value, field, where)
    check_answer(messages, field, where)
    return messages


def _messages(value: object, field: str, where: str) -> Conversation:
    messages = []
    for i, message in enumerate(_list(value, field, where)):
        if not isinstance(message, dict):
            problem = f"expected a message with role and content, found {kind(message)}"
            raise fault(where, f"{field}[{i}]", problem)
        parts = (_get(message, part, where, f"{field}[{i}].") for part in ("role", "content"))
        messages.append(Message(*parts))
    check_messages(tuple(messages), field, where)
    return tuple(messages)


def _text(value: object, field: str, where: str) -> str:
    check_text(value, field, where)
    return value


def _list(value: object, field: str, where: str) -> list:
    if not isinstance(value, list):
        raise fault(where, field, f"expected a list, found {kind(value)}")
    return value


def _get(row: Row, field: str, where: str, prefix: str = "") -> object:
    if field not in row:
        raise fault(where, prefix + field, "missing")
    return row[field]
