"""What a row of data asked, and the answers to it, as one conversation.

What a response answers is put together from several columns: a system prompt, a history and tools
where there are any, and the question itself, as text or as messages. A question of text under a
name other than `prompt`, or beside a system prompt, a history or tools, is a user's turn. Under
`prompt` alone it may be raw text as well, which the source option `?text=` decides. Text that is a
transcript, or that a chat template has written already, is not taken for a single turn.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxrm.data import columns
from jaxrm.data.columns import Row
from jaxrm.data.comparison import Conversation, Message, answer, fault
from jaxrm.data.fields import (
    HUMAN_ASSISTANT,
    Known,
    divide,
    items,
    messages,
    response,
    text,
    tool_list,
    transcript,
)

SYSTEM = ("system", "system_prompt")

ASKED = ("prompt", "messages", "conversations", "conversation", "question", "query", "instruction")
"""Columns of the question: the first of them that there is."""

HUMAN = "Human:"
"""Opens Anthropic's transcripts, after two line ends that copies often strip."""

RENDERED = re.compile(r"\s*(<\|\w+\|>|<(s|bos|start_\w+|begin_\w+)>|\[INST\])")
"""Opens what chat templates write."""

WORD = re.compile(r"[\u3040-\u9fff]|\w+")

REPEATED = 3
"""A question of so many words that all answers begin with is no coincidence."""

Text = Literal["", "chat", "raw"]
"""How text is meant: as turns of a conversation, or as it stands; "" where nobody has said."""


@dataclass(frozen=True)
class Question:
    """What the columns of a row say was asked.

    Attributes:
        column: where the question itself stands; "" where there is none.
        turns: the history and the question, without a system prompt from a column of its own.
        before: how many of the turns are the history's.
        said: the question as it is written, where that is text; None where it is messages.
        alone: whether nothing but text under `prompt` was said, so that it may be raw.
        system: a system prompt that has a column of its own, or None.
        tools: what may be called, or None.
    """

    column: str
    turns: Conversation = ()
    before: int = 0
    said: str | None = None
    alone: bool = False
    system: Message | None = None
    tools: list[Row] | None = None


def question_columns(row: Row) -> list[str]:
    """The columns that `question` reads of a row."""
    asked = _asked(row)
    present = [name for name in ("history", "tools") if not columns.is_empty(row.get(name))]
    present += [asked] if asked else []
    if asked == "instruction" and row.get("input") is not None:
        present.append("input")
    return present + [name for name in SYSTEM if not columns.is_empty(row.get(name))][:1]


def question(row: Row, where: str) -> Question:
    """What was asked, out of all columns that say so.

    LLaMA-Factory's `input` continues its `instruction` on a line of its own, and its `history` is a
    list of [what was asked, what was answered]; it may be messages too, and is not said twice where
    the messages of the question repeat it.
    """
    read, column = question_columns(row), _asked(row) or ""
    system = next((name for name in SYSTEM if name in read), None)
    details = {
        "system": system and Message("system", text(row[system], system, where)),
        "tools": tool_list(row["tools"], "tools", where) if "tools" in read else None,
    }
    before = _history(row["history"], where) if "history" in read else ()
    if not column:
        return Question("", before, len(before), **details)
    value = row[column]
    if isinstance(value, list | dict):
        turns = messages([value] if isinstance(value, dict) else value, column, where)
        if system and turns[0].role == "system" and turns[0] != details["system"]:
            raise fault(where, system, f"is not the system message that '{column}' begins with")
    else:
        further = text(row["input"], "input", where) if "input" in read else ""
        parts = (text(value, column, where), further)
        details["said"] = "\n".join(part for part in parts if part.strip()) or parts[0]
        details["alone"] = column == "prompt" and not (before or system or details["tools"])
        turns = _turns(details["said"])
    lead = turns[:1] if turns[0].role == "system" else ()
    rest = turns[len(lead) :]
    if len(rest) >= len(before) and all(map(_same, before, rest)):
        before = ()
    elif rest and before and _same(before[-1], rest[0]):
        before = before[:-1]
    return Question(column, (*lead, *before, *rest), len(before), **details)


def _turns(said: str) -> Conversation:
    """A question of text as a turn of the user, or the turns of a transcript."""
    if not is_transcript(said):
        return (Message("user", said),)
    turns = told(said)
    return turns[:-1] if len(turns) > 1 and turns[-1] == Message("assistant", "") else turns


def _asked(row: Row) -> str | None:
    """The column of the question: the first that holds something, or else that is there."""
    present = [name for name in ASKED if row.get(name) is not None]
    return next((name for name in present if not columns.is_empty(row[name])), None) or next(
        iter(present), None
    )


def _history(value: object, where: str) -> Conversation:
    turns, exchanges = [], items(value, "history", where)
    if isinstance(exchanges[0], dict):
        return messages(exchanges, "history", where)
    for i, exchange in enumerate(exchanges):
        both = items(exchange, f"history[{i}]", where)
        if len(both) != 2:
            problem = f"expected [question, answer], found {len(both)} entries"
            raise fault(where, f"history[{i}]", problem)
        said = (text(part, f"history[{i}][{j}]", where) for j, part in enumerate(both))
        turns += map(Message, ("user", "assistant"), said)
    return tuple(turns)


Answers = Sequence[tuple[str, object]]
"""(field, what it holds) of each response."""


def conversation(
    asked: Question, answers: Answers, where: str, how: Text, *, strip: bool = True
) -> Known:
    """The prompt and the responses to it.

    Answers that are messages, or transcripts, may be whole conversations, which repeat what was
    asked: the prompt is then what they begin with. Answers of text to a question that is text
    `alone` stay text where `how` is "raw", and where nobody has said how it is meant.

    Args:
        strip: take the white space off answers to a transcript.

    Raises:
        DataError: no question; text that is more than a turn (rendered already, or with the
            question in it) where a turn is meant; raw text asked of a conversation.
    """
    read = [
        (field, value if isinstance(value, str) else response((), value, field, where))
        for field, value in answers
    ]
    is_text = all(isinstance(value, str) for _, value in read)
    if how == "raw":
        if not is_text or not asked.alone:
            problem = "is a conversation here, not raw text: leave the source option text out"
            raise fault(where, asked.column or "prompt", problem)
        return _raw(asked, read, where)
    if is_text and all(_repeats(asked, value) for _, value in read):
        read = [(field, answered(told(value))) for field, value in read]
        is_text = False
    # An answer to messages is one, whatever a model has written in it.
    if is_text and asked.said is not None and not how:
        _check_turns(asked, read, where)
        if asked.alone and not is_transcript(asked.said):
            return _raw(asked, read, where) | {"undecided": True}
    if _are_whole(asked.turns, read):
        prompt, *responses = _whole(asked, read, where)
    elif not asked.column:
        problem = f"no question: expected one of the columns {', '.join(ASKED)}"
        raise fault(where, "prompt", f"missing: {problem}")
    else:
        opening = (asked.system,) if asked.system and asked.turns[0] != asked.system else ()
        prompt = (*opening, *asked.turns)
        if strip and is_text and is_transcript(asked.said):
            read = [(field, value.strip()) for field, value in read]
        responses = (answer(prompt, value) for _, value in read)
    fields = {"prompt": prompt, "responses": tuple(responses)}
    return fields if asked.tools is None else fields | {"tools": asked.tools}


def _raw(asked: Question, read: Answers, where: str) -> Known:
    return {
        "prompt": asked.said,
        "responses": tuple(text(value, field, where) for field, value in read),
    }


def _repeats(asked: Question, value: str) -> bool:
    """Whether text is a transcript of the question, or of anything where there is none."""
    if not is_told(value):
        return False
    turns = told(value)
    return all(any(_same(turn, other) for other in turns) for turn in asked.turns)


def _check_turns(asked: Question, read: Answers, where: str) -> None:
    """Raises DataError for text that is more than the turn that it would be taken for."""
    hint = f"?text=chat takes it as it is, ?ignore={asked.column}&text=raw reads whole texts"
    for field, value in read:
        if RENDERED.match(value) or is_told(value):
            raise fault(where, field, f"is written as a conversation, beside a question: {hint}")
    said = asked.said.strip()
    if RENDERED.match(said) and not asked.alone:
        problem = "is written by a chat template already: give it as messages"
        raise fault(where, asked.column, problem)
    if len(WORD.findall(said)) >= REPEATED and all(
        value.lstrip().startswith(said) for _, value in read
    ):
        raise fault(where, asked.column, f"all responses begin with it: {hint}")


def _are_whole(turns: Conversation, read: Answers) -> bool:
    """Whether answers are conversations from their beginning, rather than going on after it."""
    spoken = [value for _, value in read if not isinstance(value, str)]
    if not any(value[0].role in ("system", "user") for value in spoken):
        return False
    # After an answer the user may speak again; but what repeats all that was said is no such turn.
    goes_on = bool(turns) and turns[-1].role in ("assistant", "tool")
    return not goes_on or any(
        value[0].role == "system" or (len(value) >= len(turns) and all(map(_same, turns, value)))
        for value in spoken
    )


def _whole(asked: Question, read: Answers, where: str) -> list[Conversation]:
    """The prompt of whole conversations, and what follows it in each."""
    system = asked.system
    if system is None and asked.turns and asked.turns[0].role == "system":
        system = asked.turns[0]
    spoken = []
    for field, value in read:
        if isinstance(value, str):
            raise fault(where, field, "expected messages, as in the other responses, found text")
        if system and value[0].role != "system":
            value = (system, *value)
        elif asked.system and not _same(value[0], asked.system):
            raise fault(where, field, "begins with another system message than its column holds")
        spoken.append(value)
    divided = divide(spoken, [field for field, _ in read], where)
    said = [turn for part in divided for turn in part]
    unsaid = [
        i for i, turn in enumerate(asked.turns) if not any(_same(turn, other) for other in said)
    ]
    if unsaid:
        column = "history" if unsaid[-1] < asked.before or not asked.column else asked.column
        problem = "is not said in the responses, though they are whole conversations: leave it out "
        raise fault(where, column, f"{problem}with the source option ?ignore={column}")
    return [*divided]


def _same(one: Message, other: Message) -> bool:
    """Whether two messages are the same, but for white space around what they say."""
    both = (dataclasses.replace(turn, content=turn.content.strip()) for turn in (one, other))
    return next(both) == next(both)


def is_transcript(said: object) -> bool:
    """Whether text opens as a transcript does, with or without the line ends before it."""
    return isinstance(said, str) and said.lstrip().startswith(HUMAN)


def told(said: str) -> Conversation:
    """The turns of a transcript."""
    return transcript("\n\n" + said.lstrip(), HUMAN_ASSISTANT)


def is_told(said: str) -> bool:
    """Whether text is a transcript in which the assistant has spoken."""
    return is_transcript(said) and len(told(said)) > 1


def answered(turns: Conversation) -> Conversation:
    """A conversation that ends with the assistant, who may have said nothing."""
    return turns if turns[-1].role == "assistant" else (*turns, Message("assistant", ""))
