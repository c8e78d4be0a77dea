"""Typed values out of a row of a data file, or an error that names the file, the row and the field.

A row is what one line of JSON or one row of Parquet holds, in plain Python values. `where` names
the file and the row, `field` the column with the path inside it: `answers[2].rank`.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
from collections.abc import Collection, Sequence

from jaxrm.data import columns
from jaxrm.data.columns import Row
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

Known = dict[str, object]
"""Fields of a Comparison, by name, apart from where its row came from."""

SPEAKERS = {
    "Human": "user",
    "User": "user",
    "human": "user",
    "Assistant": "assistant",
    "gpt": "assistant",
}
"""What others call those who speak."""

HUMAN_ASSISTANT = re.compile(r"\n\n(Human|Assistant):")
"""Opens a turn in Anthropic's data and in what is derived from it."""


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
        allowed = ", ".join(map(repr, options))
        raise fault(where, field, f"expected one of {allowed}, found {value!r}")
    return options[options.index(value)]  # 1 where a file says 1.0 or true


def items(value: object, field: str, where: str) -> list:
    """`value`, which must be a list."""
    if not isinstance(value, list):
        raise fault(where, field, f"expected a list, found {kind(value)}")
    return value


def objects(value: object, field: str, where: str) -> list[tuple[str, Row]]:
    """A list of objects, each with the path that leads to its fields."""
    located = [(f"{field}[{i}]", item) for i, item in enumerate(items(value, field, where))]
    for path, item in located:
        if not isinstance(item, dict):
            raise fault(where, path, f"expected an object, found {kind(item)}")
    return [(path + ".", item) for path, item in located]


def refuse_context(value: Row, read: Collection[str], path: str, where: str) -> None:
    """Raises DataError for a field of an object within a row that is not read and may hold
    context."""
    for name in value.keys() - set(read):
        if columns.judge(name, value[name]) == "context":
            raise fault(where, path + name, "may hold context, and is not read")


def user(row: Row, field: str, where: str) -> Conversation:
    """A prompt of one turn, given as text."""
    return (Message("user", text(get(row, field, where), field, where)),)


def messages(value: object, field: str, where: str) -> Conversation:
    """A conversation: a non-empty list of objects with `role` and `content`, or ShareGPT's `from`
    and `value`; the content is text or a list of text parts, which blank lines join.

    What a chat template takes comes along (`Message`). Any other field that is not null must be
    known to be harmless, or it is a DataError, as are parts that are no text.
    """
    numbered = enumerate(items(value, field, where))
    turns = tuple(message(item, f"{field}[{i}]", where) for i, item in numbered)
    check_messages(turns, field, where)
    return turns


def message(value: object, field: str, where: str) -> Message:
    """One message of a conversation, as `messages` reads them; its role may be any."""
    if not isinstance(value, dict):
        problem = f"expected a message with role and content, found {kind(value)}"
        raise fault(where, field, problem)
    role, content = ("from", "value") if is_sharegpt(value) else ("role", "content")
    parts = {name: part for name, part in value.items() if part is not None}
    role, said = parts.pop(role, None), parts.pop(content, None)
    if role is None:
        raise fault(where, f"{field}.role", "missing")
    calls = tool_list(parts.pop("tool_calls", None), f"{field}.tool_calls", where)
    calls = calls and [_with_objects(call) for call in calls]
    if said is None and calls is None:
        raise fault(where, f"{field}.content", "missing")
    names = ("reasoning_content", "name", "tool_call_id")
    extras = {name: parts.pop(name) for name in names if name in parts}
    for name, part in parts.items():
        if columns.judge(name, part) == "harmless":
            continue
        raise fault(
            where,
            f"{field}.{name}",
            f"is no part of a message that is read: leave it out (a source: ?ignore={name})",
        )
    said = "" if said is None else _said(said, f"{field}.content", where)
    role = SPEAKERS.get(role, role) if isinstance(role, str) else role
    return Message(role, said, tool_calls=calls, **extras)


def _said(content: object, field: str, where: str) -> object:
    """Content as text: of a list of parts, what they say."""
    if not isinstance(content, list):
        return content
    said = []
    for at, part in objects(content, field, where):
        choice(get(part, "type", where, at), at + "type", ("text",), where)
        refuse_context(part, ("type", "text"), at, where)
        said.append(text(get(part, "text", where, at), at + "text", where))
    return "\n\n".join(said)


def json_list(said: str, field: str, where: str) -> list:
    """The list that text holds in JSON."""
    try:
        value = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise fault(where, field, f"not a list in JSON: {error}") from error
    return items(value, field, where)


def tool_list(value: object, field: str, where: str) -> list[Row] | None:
    """Tools, or calls of them: a list of objects, or JSON of one; None where there are none."""
    if isinstance(value, str) and value.strip():
        value = json_list(value, field, where)
    if columns.is_empty(value):
        return None
    return [item for _, item in objects(value, field, where)]


def _with_objects(call: Row) -> Row:
    """A call whose arguments are an object, as chat templates take them: OpenAI writes JSON."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return call | {"function": function | {"arguments": arguments}}


def is_sharegpt(message: Row) -> bool:
    """Whether a message is written as ShareGPT does: `from` and `value`."""
    return "role" not in message and {"from", "value"} <= message.keys()


def response(prompt: Conversation | str, value: object, field: str, where: str):
    """A response to `prompt`: text, or messages that end with the assistant's."""
    if isinstance(value, str) or isinstance(prompt, str):
        return answer(prompt, text(value, field, where))
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise fault(where, field, f"expected text or a list of messages, found {kind(value)}")
    turns = messages(value, field, where)
    check_answer(turns, field, where)
    return turns


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
    spoken: Sequence[Conversation], fields: Sequence[str], where: str
) -> tuple[Conversation, ...]:
    """The prompt that two or more conversations begin with, and what follows it in each.

    A response is one whole turn or more, so the prompt does not end inside the assistant's. Raises
    DataError, naming `fields`, where they share no first message, or nothing but a system prompt.
    """
    first, *others = spoken
    shared = min(*(common_length(first, other) for other in others), *(len(c) - 1 for c in spoken))
    shared = max(shared, 0)
    while (
        shared > 0
        and first[shared - 1].role == "assistant"
        and any(conversation[shared].role == "assistant" for conversation in spoken)
    ):
        shared -= 1
    if all(message.role == "system" for message in first[:shared]):
        problem = f"shares no first message with '{fields[1]}', so there is no prompt"
        raise fault(where, fields[0], problem)
    return first[:shared], *(conversation[shared:] for conversation in spoken)


def ranked(grades: Sequence[float]) -> tuple[int, ...]:
    """Ranks by grade, the highest 0; equal grades share a rank, and no rank is left out."""
    best_first = sorted(set(grades), reverse=True)
    return tuple(best_first.index(grade) for grade in grades)


def graded(grades: Sequence[float]) -> Known:
    """What grades say of the responses: scores, ranks and, of a pair, the margin.

    Of more than two responses each pair has a margin of its own, so no one number is given.
    """
    fields = {"ranks": ranked(grades), "scores": tuple(grades)}
    return fields | {"margin": abs(grades[0] - grades[1])} if len(grades) == 2 else fields
