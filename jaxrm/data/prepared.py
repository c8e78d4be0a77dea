"""A row before a form reads it: without what is to be ignored, and with the messages that a data
frame has left as text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection

from jaxrm.data.columns import Row, holds_messages, is_message
from jaxrm.data.common_formats import SIDES
from jaxrm.data.comparison import fault

SERIALISED = re.compile(r"""\s*(array\()?\[?\s*\{\s*['"]\w+['"]\s*:""")
SPEAKER = re.compile(r"""['"](role|from)['"]\s*:""")
"""How messages look that are written as JSON, or as Python writes them: the beginning, and a
part."""


def prepared(row: Row, ignored: Collection[str], where: str) -> Row:
    """A row as its author meant it.

    Args:
        row: as it was read.
        ignored: columns and fields of messages, and of objects with messages, that are left out.
        where: the file and row, for error messages.

    Raises:
        DataError: text that looks like messages and cannot be read as such, or a side of a pair
            that is such messages beside one that is not; names the column.
    """
    kept = {name: value for name, value in row.items() if name not in ignored}
    read = {name: _unserialised(name, value, where) for name, value in kept.items()}
    written = [name for name in SIDES if isinstance(kept.get(name), str)]
    if len({isinstance(read[name], str) for name in written}) > 1:
        raise fault(where, written[0], f"one of {' and '.join(SIDES)} is messages, written as text")
    return {name: _without(value, ignored) for name, value in read.items()} if ignored else read


def _unserialised(name: str, value: object, where: str) -> object:
    if isinstance(value, list):
        is_text = bool(value) and isinstance(value[0], str)
        return [_unserialised(name, item, where) for item in value] if is_text else value
    if not (isinstance(value, str) and SERIALISED.match(value) and SPEAKER.search(value)):
        return value
    for parse, problems in (
        (json.loads, (ValueError, RecursionError)),
        (ast.literal_eval, (ValueError, SyntaxError, MemoryError, RecursionError)),
    ):
        try:
            read = parse(value.strip())
        except problems:
            continue
        return read if holds_messages(read) else value
    problem = "looks like messages written as text, but is neither JSON nor a Python list of them"
    raise fault(where, name, problem)


def _without(value: object, ignored: Collection[str]) -> object:
    """A value whose messages, and objects that hold messages, have no such field."""
    if isinstance(value, list):
        return [_without(item, ignored) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {"role", "content", "from", "value", "messages"}
    if not (is_message(value) or "messages" in value):
        kept = value.keys()
    return {
        name: _without(part, ignored)
        for name, part in value.items()
        if name in kept or name not in ignored
    }
