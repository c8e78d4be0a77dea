"""Layouts of preference data that many share: what was asked in one of several columns, and answers
beside it.

What a response answers is put together from the columns in `QUESTION`: a system prompt, a history
and tools where there are any, and the question itself, as text or as messages. A question of text
under a name other than `prompt`, or beside a system prompt, a history or tools, is a user's turn.
Under `prompt` alone it may be raw text as well, which the source option `?text=` decides. Text that
is a transcript, or that a chat template has written already, is not taken for a single turn.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jaxrm.data import columns
from jaxrm.data.comparison import (
    Conversation,
    Message,
    Step,
    answer,
    check_label,
    check_number,
    common_length,
    fault,
    join_steps,
)
from jaxrm.data.fields import (
    HUMAN_ASSISTANT,
    Known,
    Row,
    divide,
    get,
    items,
    messages,
    objects,
    response,
    text,
    tool_list,
    transcript,
)

SIDES = ("chosen", "rejected")

SYSTEM = ("system", "system_prompt")

ASKED = ("prompt", "messages", "conversations", "conversation", "question", "query", "instruction")
"""Columns of the question: the first of them that there is."""

QUESTION = (*SYSTEM, "history", *ASKED, "input", "tools")
"""Columns of what a response answers."""

GRADES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
)
"""Columns that may grade the two responses of a pair: ours, Hugging Face H4's and argilla's."""

SEPARATOR = "\n"
"""Between the steps of a response that is given in steps: TRL's default."""

HUMAN = "Human:"
"""Opens Anthropic's transcripts, after two line ends that copies often strip."""

RENDERED = re.compile(r"\s*(<\|\w+\|>|<(s|bos|start_\w+|begin_\w+)>|\[INST\])")
"""Opens what chat templates write."""

WORD = re.compile(r"[\u3040-\u9fff]|\w+")

REPEATED = 3
"""A question of so many words that all answers begin with is no coincidence."""

ORDERS = (
    "chosen",
    "rejected",
    "winner",
    "label",
    "labels",
    "preference",
    "rating",
    "ratings",
    "best",
)
"""Columns that may say which of several responses is better, in a form of ours or of others."""

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
    known = {
        "system": system and Message("system", text(row[system], system, where)),
        "tools": tool_list(row["tools"], "tools", where) if "tools" in read else None,
    }
    before = _history(row["history"], where) if "history" in read else ()
    if not column:
        return Question("", before, len(before), **known)
    value = row[column]
    if isinstance(value, list | dict):
        turns = messages([value] if isinstance(value, dict) else value, column, where)
        if system and turns[0].role == "system" and turns[0] != known["system"]:
            raise fault(where, system, f"is not the system message that '{column}' begins with")
    else:
        further = text(row["input"], "input", where) if "input" in read else ""
        parts = (text(value, column, where), further)
        known["said"] = "\n".join(part for part in parts if part.strip()) or parts[0]
        known["alone"] = column == "prompt" and not (before or system or known["tools"])
        turns = _turns(known["said"])
    lead = turns[:1] if turns[0].role == "system" else ()
    rest = turns[len(lead) :]
    if len(rest) >= len(before) and all(map(_same, before, rest)):
        before = ()
    elif rest and before and _same(before[-1], rest[0]):
        before = before[:-1]
    return Question(column, (*lead, *before, *rest), len(before), **known)


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
    if is_text and all(map(_is_told, (value for _, value in read))):
        read = [(field, _answered(told(value))) for field, value in read]
        is_text = False
    if is_text and asked.said is not None:
        _check_turns(asked, read, where, how)
        if asked.alone and not how and not is_transcript(asked.said):
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
    known = {"prompt": prompt, "responses": tuple(responses)}
    return known if asked.tools is None else known | {"tools": asked.tools}


def _raw(asked: Question, read: Answers, where: str) -> Known:
    return {
        "prompt": asked.said,
        "responses": tuple(text(value, field, where) for field, value in read),
    }


def _check_turns(asked: Question, read: Answers, where: str, how: Text) -> None:
    """Raises DataError for text that is more than the turn that it would be taken for."""
    hint = f"?ignore={asked.column}&text=raw reads whole texts as they stand"
    for field, value in read:
        if RENDERED.match(value) or _is_told(value):
            raise fault(
                where, field, f"is a conversation written as text beside a question: {hint}"
            )
    if how == "chat":
        return
    if RENDERED.match(asked.said) and not asked.alone:
        problem = "is written by a chat template already: give it as messages"
        raise fault(where, asked.column, problem)
    said = asked.said.strip()
    if len(WORD.findall(said)) >= REPEATED and all(
        value.lstrip().startswith(said) for _, value in read
    ):
        problem = "all responses begin with it: ?text=chat takes them as they are, and "
        raise fault(where, asked.column, problem + hint)


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


def pairs(row: Row, where: str, *, how: Text) -> Known:
    """Chosen responses over rejected ones, ranked as labelled: pairs whose grades tie train in TRL
    too. Of several on a side, equal among themselves, a question of text is a user's turn."""
    sides = [_several(get(row, side, where), side, where) for side in SIDES]
    asked = question(row, where)
    if any(isinstance(row[side], list) for side in SIDES):
        asked = dataclasses.replace(asked, alone=False)
    known = conversation(asked, [*sides[0], *sides[1]], where, how)
    known["ranks"] = (0,) * len(sides[0]) + (1,) * len(sides[1])
    return known | _grades(row, where) if len(known["ranks"]) == 2 else known


def rm_bench(row: Row, where: str, *, how: Text) -> Known:
    """RewardBench 2 and RM-Bench, whose `domain` is the subset: `pairs` of lists of texts."""
    domain = row.get("domain")
    return pairs(row, where, how=how) | ({} if domain is None else {"subset": domain})


def _several(value: object, field: str, where: str) -> Answers:
    """A list of texts or of conversations is several answers, a list of messages one.

    Raises DataError for several messages of the assistant alone, which may be either.
    """
    if isinstance(value, list) and len(value) > 1 and all(map(_is_answer, value)):
        problem = "several messages of the assistant: as several answers, each is a list of its own"
        raise fault(where, field, problem)
    if isinstance(value, list) and any(isinstance(item, str | list) for item in value):
        return [(f"{field}[{k}]", item) for k, item in enumerate(value)]
    return [(field, value)]


def _is_answer(value: object) -> bool:
    """Whether a value is a message of the assistant that says something and calls no tool."""
    if not isinstance(value, dict) or value.get("tool_calls"):
        return False
    return value.get("role", value.get("from")) in ("assistant", "gpt")


def _grades(row: Row, where: str) -> Known:
    for names in GRADES:
        if any(row.get(name) is not None for name in names):
            for name in names:
                check_number(row.get(name), name, where)
            return {"scores": tuple(row[name] for name in names)}
    return {}


def preferences(row: Row, where: str, *, how: Text) -> Known:
    """OpenAI's form: `input` with messages and tools, and an output that is preferred."""
    fields = ("preferred_output", "non_preferred_output")
    [(_, given)] = objects([get(row, "input", where)], "input", where)
    for name, value in given.items():
        unread = name not in ("messages", "tools", "parallel_tool_calls")
        if unread and columns.judge(name, value) == "context":
            raise fault(where, f"input.{name}", "may hold context, and is not read")
    turns = messages(get(given, "messages", where, "input."), "input.messages", where)
    tools = tool_list(given.get("tools"), "input.tools", where)
    sides = [_several(get(row, field, where), field, where) for field in fields]
    known = conversation(Question("input", turns, tools=tools), [*sides[0], *sides[1]], where, how)
    return known | {"ranks": (0,) * len(sides[0]) + (1,) * len(sides[1])}


def transcripts(row: Row, where: str) -> Known:
    """Anthropic/hh-rlhf. Where the user has the last word, the assistant's answer is empty."""
    spoken = []
    for side in SIDES:
        said = text(get(row, side, where), side, where)
        if not is_transcript(said):
            raise fault(where, side, f"must begin with {HUMAN!r}, as the first row does")
        spoken.append(_answered(told(said)))
    prompt, *responses = divide(spoken, SIDES, where)
    return {"prompt": prompt, "responses": tuple(responses), "ranks": (0, 1)} | _grades(row, where)


def is_transcript(said: object) -> bool:
    """Whether text opens as a transcript does, with or without the line ends before it."""
    return isinstance(said, str) and said.lstrip().startswith(HUMAN)


def told(said: str) -> Conversation:
    """The turns of a transcript."""
    return transcript("\n\n" + said.lstrip(), HUMAN_ASSISTANT)


def _is_told(said: str) -> bool:
    """Whether text is a transcript in which the assistant has spoken."""
    return is_transcript(said) and len(told(said)) > 1


def _answered(turns: Conversation) -> Conversation:
    """A conversation that ends with the assistant, who may have said nothing."""
    return turns if turns[-1].role == "assistant" else (*turns, Message("assistant", ""))


def texts(row: Row, where: str, *, how: Text) -> Known:
    """Two whole texts, whose prompt is the words that both begin with, as in TRL.

    Raises DataError where they begin with no common word, unless `how` says that they are raw:
    there is no prompt then, and the question may have been lost.
    """
    chosen, rejected = (text(get(row, side, where), side, where) for side in SIDES)
    shared = _shared_words(chosen, rejected)
    if how == "chat" or (how == "" and (not shared or _is_told(chosen) or _is_told(rejected))):
        problem = "is a whole text" if shared else "shares no first word with 'rejected'"
        problem += ", and no column says what was asked: name that one prompt; the source option "
        raise fault(where, "chosen", f"{problem}?text=raw reads whole texts as they stand")
    known = {"prompt": chosen[:shared], "responses": (chosen[shared:], rejected[shared:])}
    return known | {"ranks": (0, 1)} | _grades(row, where)


def _shared_words(one: str, other: str) -> int:
    """Characters of the whole words that two texts begin with, short of the last of either.

    White space after the words is not theirs: most tokenizers join a space to the word after it.
    """
    longest = min(common_length(one, other), len(one) - 1, len(other) - 1)
    ends = (n for n in range(max(longest, 0), 0, -1) if not one[n - 1].isspace())
    return next((n for n in ends if not (_joined(one, n) or _joined(other, n))), 0)


def _joined(said: str, place: int) -> bool:
    """Whether the characters on both sides of a place are of one word."""
    both = said[place - 1 : place + 1]
    return len(both) == 2 and all(map(_is_letter, both))


def _is_letter(character: str) -> bool:
    """An ideograph is a word by itself."""
    return character.isalnum() and not "\u3040" <= character <= "\u9fff"


def responses(row: Row, where: str, column: str = "responses", *, how: Text) -> Known:
    """Any number of responses, with or without an order.

    Text without a question is raw text, where `how` or a true `raw` beside it says so.
    """
    if row.get("raw") is True:
        how = "raw"
    given = enumerate(items(get(row, column, where), column, where))
    answers = [(f"{column}[{k}]", value) for k, value in given]
    asked = question(row, where)
    if how == "raw" and not asked.column:
        asked = Question("prompt", said="", alone=not (asked.turns or asked.system or asked.tools))
    known = conversation(asked, answers, where, how)
    for name in ("ranks", "scores"):
        if row.get(name) is not None:
            known[name] = tuple(items(row[name], name, where))
    if row.get("steps") is not None:
        given = enumerate(items(row["steps"], "steps", where))
        known["steps"] = tuple(_steps(value, f"steps[{k}]", where) for k, value in given)
    for name in ORDERS:
        if (
            len(answers) > 1
            and not {"ranks", "scores"} & known.keys()
            and row.get(name) is not None
        ):
            problem = "may say which response is better, and is not read: give ranks (0 the best), "
            raise fault(where, name, f"{problem}or leave it out with ?ignore={name}")
    return known


def _steps(value: object, field: str, where: str) -> tuple[Step, ...]:
    steps = []
    for t, step in enumerate(items(value, field, where)):
        both = items(step, f"{field}[{t}]", where)
        if len(both) != 2:
            raise fault(where, f"{field}[{t}]", f"expected [end, label], found {len(both)} entries")
        steps.append(Step(both[0], _label(both[1])))
    return tuple(steps)


def stepwise(row: Row, where: str, *, how: Text) -> Known:
    """One response in steps. TRL writes a separator after the last step too, and reads a score at
    the separator; here the response ends with its last step, and each score is read at the last
    token of the step itself."""
    given = enumerate(items(get(row, "completions", where), "completions", where))
    steps = [text(step, f"completions[{t}]", where) for t, step in given]
    labels = items(get(row, "labels", where), "labels", where)
    if len(labels) != len(steps):
        raise fault(where, "labels", f"has {len(labels)} entries for {len(steps)} steps")
    if not steps:
        raise fault(where, "completions", "needs at least one step")
    if not all(steps):
        raise fault(where, f"completions[{steps.index('')}]", "a step must not be empty")
    labels = [_label(label) for label in labels]
    for t, label in enumerate(labels):
        check_label(label, f"labels[{t}]", where)
    joined, ends = join_steps(steps, labels, SEPARATOR)
    answers = [("completions", joined)]
    known = conversation(question(row, where), answers, where, how, strip=False)
    return known | {"steps": (ends,)}


def _label(value: object) -> object:
    """A step's label, a truth as a number; null is no label."""
    return math.nan if value is None else float(value) if isinstance(value, bool) else value
