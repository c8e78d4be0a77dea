"""Typed values out of a row of a data file, or an error that names the file, the row and the field.

A row is what one line of JSON or one row of Parquet holds, in plain Python values. `where` names
the file and the row, `field` the column with the path inside it: `answers[2].rank`.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Sequence

from jaxrm.data.comparison import (
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

Row = dict[str, object]
Known = dict[str, object]
"""Fields of a Comparison, by name, apart from where its row came from."""

SPEAKERS = {"Human": "user", "User": "user", "Assistant": "assistant"}


def get(row: Row, field: str, where: str, path: str = "") -> object:
    """The value of a field that must be there; `path` is what leads to an object inside a row."""
    if field not in row:
        raise fault(where, path + field, "missing")
    return row[field]


def text(value: object, field: str, where: str) -> str:
    """`value`, which must be text."""
    check_text(value, field, where)
    return value


def number(row: Row, field: str, where: str, path: str = "") -> float:
    """A field that must be a finite number."""
    value = get(row, field, where, path)
    check_number(value, path + field, where)
    return value


def choice(value: object, field: str, options: Sequence, where: str) -> object:
    """`value`, which must be one of `options`."""
    if value not in options:
        known = ", ".join(map(repr, options))
        raise fault(where, field, f"expected one of {known}, found {value!r}")
    return options[options.index(value)]  # 1 where a file says 1.0 or true


def items(value: object, field: str, where: str) -> list:
    """`value`, which must be a list."""
    if not isinstance(value, list):
        raise fault(where, field, f"expected a list, found {kind(value)}")
    return value


def objects(value: object, field: str, where: str) -> list[tuple[str, Row]]:
    """A list of objects, each with the path that leads to its fields."""
    found = [(f"{field}[{i}]", item) for i, item in enumerate(items(value, field, where))]
    for path, item in found:
        if not isinstance(item, dict):
            raise fault(where, path, f"expected an object, found {kind(item)}")
    return [(path + ".", item) for path, item in found]


def user(row: Row, field: str, where: str) -> Conversation:
    """A prompt of one turn, given as text."""
    return (Message("user", text(get(row, field, where), field, where)),)


def messages(value: object, field: str, where: str) -> Conversation:
    """A list of `{"role": ..., "content": ...}`, not empty."""
    found = []
    for i, message in enumerate(items(value, field, where)):
        if not isinstance(message, dict):
            problem = f"expected a message with role and content, found {kind(message)}"
            raise fault(where, f"{field}[{i}]", problem)
        parts = (get(message, part, where, f"{field}[{i}].") for part in ("role", "content"))
        found.append(Message(*parts))
    check_messages(tuple(found), field, where)
    return tuple(found)


def response(prompt: Conversation | str, value: object, field: str, where: str):
    """A response to `prompt`: text, or messages that end with the assistant's."""
    if isinstance(value, str) or isinstance(prompt, str):
        return answer(prompt, text(value, field, where))
    if not isinstance(value, list):
        raise fault(where, field, f"expected text or a list of messages, found {kind(value)}")
    found = messages(value, field, where)
    check_answer(found, field, where)
    return found


def transcript(told: str, marker: re.Pattern) -> Conversation:
    """A conversation that is written as one text.

    What stands before the first marker is the user's, unless it is blank. Turns come without the
    white space around them, and turns of one speaker that follow each other are one turn: chat
    templates refuse two.

    Args:
        told: the text.
        marker: what opens a turn; its one group is a key of `SPEAKERS`.
    """
    opening, *rest = marker.split(told)
    turns = [("user", opening)] if opening.strip() or not rest else []
    turns += [(SPEAKERS[name], said) for name, said in zip(rest[::2], rest[1::2], strict=True)]
    return tuple(
        Message(role, "\n\n".join(filter(None, (said.strip() for _, said in same))))
        for role, same in itertools.groupby(turns, operator.itemgetter(0))
    )


def divide(
    first: Conversation, second: Conversation, fields: tuple[str, str], where: str
) -> tuple[Conversation, Conversation, Conversation]:
    """The prompt that two conversations begin with, and what follows it in each.

    A response is one whole turn or more, so the prompt does not end inside the assistant's. Raises
    DataError, naming `fields`, where the two share no first message.
    """
    shared = min(common_length(first, second), len(first) - 1, len(second) - 1)
    while (
        shared > 0
        and first[shared - 1].role == "assistant"
        and "assistant" in (first[shared].role, second[shared].role)
    ):
        shared -= 1
    if shared <= 0:
        problem = f"shares no first message with '{fields[1]}', so there is no prompt"
        raise fault(where, fields[0], problem)
    return first[:shared], first[shared:], second[shared:]


def ranked(grades: Sequence[float]) -> tuple[int, ...]:
    """Ranks by grade, the highest 0; equal grades share a rank, and no rank is left out."""
    best_first = sorted(set(grades), reverse=True)
    return tuple(best_first.index(grade) for grade in grades)


def graded(grades: Sequence[float]) -> Known:
    """What grades say of the responses: scores, ranks and, of a pair, the margin.

    Of more than two responses each pair has a margin of its own, so no one number is given.
    """
    known = {"ranks": ranked(grades), "scores": tuple(grades)}
    return known | {"margin": abs(grades[0] - grades[1])} if len(grades) == 2 else known
