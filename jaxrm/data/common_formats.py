"""Layouts of preference data that many share: what was asked in one of several columns, and answers
beside it.

What a response answers is put together from the columns in `QUESTION`: a system prompt, a history
and tools where there are any, and the question itself, as text or as messages. A question of text
under a name other than `prompt`, or beside a system prompt, a history or tools, is a user's turn.
Under `prompt` alone it may be raw text as well, which the source option `?text=` decides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Question:
    """What the columns of a row say was asked.

    Attributes:
        column: where the question itself stands; "" where there is none.
        turns: the history and the question, without a system prompt from a column of its own.
        text: the question where it is text that may be raw: nothing else was said.
        system: a system prompt that has a column of its own, or None.
        tools: what may be called, or None.
    """

    column: str
    turns: Conversation
    text: str | None = None
    system: Message | None = None
    tools: list[Row] | None = None

    @property
    def prompt(self) -> Conversation:
        """All that was said, as a conversation."""
        system = (self.system,) if self.system and self.turns[:1] != (self.system,) else ()
        return (*system, *self.turns)


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
    list of [what was asked, what was answered]; it may be messages too.
    """
    read = question_columns(row)
    column = _asked(row)
    system = next((name for name in SYSTEM if name in read), None)
    opening = system and Message("system", text(row[system], system, where))
    tools = tool_list(row["tools"], "tools", where) if "tools" in read else None
    before = _history(row["history"], where) if "history" in read else ()
    value = row[column] if column else None
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        turns = messages(value, column, where)
        if opening and turns[0].role == "system" and turns[0] != opening:
            raise fault(where, system, f"is not the system message that '{column}' begins with")
        return Question(column, before + turns, None, opening, tools)
    if column is None:
        return Question("", before, None, opening, tools)
    asked = text(value, column, where)
    if "input" in read and text(row["input"], "input", where).strip():
        asked = f"{asked}\n{row['input']}"
    alone = column == "prompt" and not (before or opening or tools)
    turns = (*before, Message("user", asked))
    return Question(column, turns, asked if alone else None, opening, tools)


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


def conversation(asked: Question, answers: Answers, where: str) -> Known:
    """The prompt and the responses to it.

    Answers that are messages may be whole conversations, which repeat what was asked: the prompt is
    then what they begin with. Answers of text to a question of text under `prompt` stay text.
    """
    read = [
        (field, value if isinstance(value, str) else response((), value, field, where))
        for field, value in answers
    ]
    if asked.text is not None and all(isinstance(value, str) for _, value in read):
        responses = tuple(text(value, field, where) for field, value in read)
        return {"prompt": asked.text, "responses": responses}
    if _are_whole(asked.turns, read):
        prompt, *responses = _whole(asked, read, where)
    elif not asked.column:
        problem = f"no question: expected one of the columns {', '.join(ASKED)}"
        raise fault(where, "prompt", f"missing: {problem}")
    else:
        prompt = asked.prompt
        responses = (answer(prompt, text_or_turns) for _, text_or_turns in read)
    known = {"prompt": prompt, "responses": tuple(responses)}
    return known if asked.tools is None else known | {"tools": asked.tools}


def _are_whole(turns: Conversation, read: Answers) -> bool:
    """Whether answers are conversations from their beginning, rather than going on after it."""
    opening = [value[0] for _, value in read if not isinstance(value, str)]
    if not any(turn.role in ("system", "user") for turn in opening):
        return False
    # After an answer the user may speak again; but what repeats the question is no such turn.
    goes_on = bool(turns) and turns[-1].role in ("assistant", "tool")
    return not goes_on or any(
        turn.role == "system" or _same(turn, turns[0]) or turn in turns for turn in opening
    )


def _whole(asked: Question, read: Answers, where: str) -> list[Conversation]:
    """The prompt of whole conversations, and what follows it in each."""
    spoken = []
    for field, value in read:
        if isinstance(value, str):
            raise fault(where, field, "expected messages, as in the other responses, found text")
        if asked.system and value[0].role != "system":
            value = (asked.system, *value)
        elif asked.system and not _same(value[0], asked.system):
            raise fault(where, field, "begins with another system message than its column holds")
        spoken.append(value)
    divided = divide(spoken, [field for field, _ in read], where)
    said = [turn for part in divided for turn in part]
    if not all(any(_same(turn, other) for other in said) for turn in asked.turns):
        column = asked.column or "history"
        problem = "is not said in the responses, though they are whole conversations: leave it out "
        raise fault(where, column, f"{problem}with the source option ?ignore={column}")
    return [*divided]


def _same(one: Message, other: Message) -> bool:
    """Whether two messages are the same, but for white space around what they say."""
    both = (dataclasses.replace(turn, content=turn.content.strip()) for turn in (one, other))
    return next(both) == next(both)


def pairs(row: Row, where: str) -> Known:
    """A chosen response over a rejected one, or one over several, ranked as labelled: pairs whose
    grades tie train in TRL too."""
    sides = [_several(get(row, side, where), side, where) for side in SIDES]
    known = conversation(question(row, where), [*sides[0], *sides[1]], where)
    known["ranks"] = (0,) * len(sides[0]) + (1,) * len(sides[1])
    return known | _grades(row, where) if len(known["ranks"]) == 2 else known


def _several(value: object, field: str, where: str) -> Answers:
    """A list of texts or of conversations is several answers, a list of messages one."""
    if isinstance(value, list) and value and all(isinstance(item, str | list) for item in value):
        return [(f"{field}[{k}]", item) for k, item in enumerate(value)]
    return [(field, value)]


def _grades(row: Row, where: str) -> Known:
    for names in GRADES:
        if any(row.get(name) is not None for name in names):
            for name in names:
                check_number(row.get(name), name, where)
            return {"scores": tuple(row[name] for name in names)}
    return {}


def preferences(row: Row, where: str) -> Known:
    """OpenAI's form: `input` with messages and tools, and an output that is preferred."""
    fields = ("preferred_output", "non_preferred_output")
    [(_, given)] = objects([get(row, "input", where)], "input", where)
    for name, value in given.items():
        unread = name not in ("messages", "tools", "parallel_tool_calls")
        if unread and columns.judge(name, value) == "context":
            raise fault(where, f"input.{name}", "may hold context, and is not read")
    turns = messages(get(given, "messages", where, "input."), "input.messages", where)
    tools = tool_list(given.get("tools"), "input.tools", where)
    asked = Question("input", turns, tools=tools)
    known = conversation(asked, [(field, get(row, field, where)) for field in fields], where)
    return known | {"ranks": (0, 1)}


def transcripts(row: Row, where: str) -> Known:
    """Anthropic/hh-rlhf. Where the user has the last word, the assistant's answer is empty."""
    spoken = []
    for side in SIDES:
        said = text(get(row, side, where), side, where)
        if not is_transcript(said):
            raise fault(where, side, f"must begin with {HUMAN!r}, as the first row does")
        turns = told(said)
        ends = turns[-1].role == "assistant"
        spoken.append(turns if ends else (*turns, Message("assistant", "")))
    prompt, *responses = divide(spoken, SIDES, where)
    return {"prompt": prompt, "responses": tuple(responses), "ranks": (0, 1)} | _grades(row, where)


def is_transcript(said: object) -> bool:
    """Whether text opens as a transcript does, with or without the line ends before it."""
    return isinstance(said, str) and said.lstrip().startswith(HUMAN)


def told(said: str) -> Conversation:
    """The turns of a transcript."""
    return transcript("\n\n" + said.lstrip(), HUMAN_ASSISTANT)


def texts(row: Row, where: str) -> Known:
    """Two whole texts, whose prompt is the words that both begin with, as in TRL.

    Where they share no word there is no prompt, and the texts are whole as they stand.
    """
    chosen, rejected = (text(get(row, side, where), side, where) for side in SIDES)
    shared = _shared_words(chosen, rejected)
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


def responses(row: Row, where: str, column: str = "responses") -> Known:
    """Any number of responses, with or without an order."""
    given = enumerate(items(get(row, column, where), column, where))
    known = conversation(
        question(row, where), [(f"{column}[{k}]", value) for k, value in given], where
    )
    for name in ("ranks", "scores"):
        if row.get(name) is not None:
            known[name] = tuple(items(row[name], name, where))
    if row.get("steps") is not None:
        given = enumerate(items(row["steps"], "steps", where))
        known["steps"] = tuple(_steps(value, f"steps[{k}]", where) for k, value in given)
    return known


def _steps(value: object, field: str, where: str) -> tuple[Step, ...]:
    steps = []
    for t, step in enumerate(items(value, field, where)):
        both = items(step, f"{field}[{t}]", where)
        if len(both) != 2:
            raise fault(where, f"{field}[{t}]", f"expected [end, label], found {len(both)} entries")
        steps.append(Step(both[0], _label(both[1])))
    return tuple(steps)


def stepwise(row: Row, where: str) -> Known:
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
    return conversation(question(row, where), [("completions", joined)], where) | {"steps": (ends,)}


def _label(value: object) -> object:
    """A step's label, a truth as a number; null is no label."""
    return math.nan if value is None else float(value) if isinstance(value, bool) else value
