"""Layouts of preference data that many share: what was asked in one of several columns
(`jaxrm.data.asked`), and answers beside it."""

from __future__ import annotations

import dataclasses
import math

from jaxrm.data.asked import (
    HUMAN,
    Answers,
    Question,
    Text,
    answered,
    conversation,
    is_told,
    is_transcript,
    question,
    told,
)
from jaxrm.data.comparison import Step, check_label, check_number, common_length, fault, join_steps
from jaxrm.data.fields import (
    Known,
    Row,
    divide,
    get,
    items,
    messages,
    objects,
    refuse_context,
    text,
    tool_list,
)

SIDES = ("chosen", "rejected")

GRADES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
)
"""Columns that may grade the two responses of a pair: ours, Hugging Face H4's and argilla's."""

SEPARATOR = "\n"
"""Between the steps of a response that is given in steps: TRL's default."""

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


def pairs(row: Row, where: str, *, how: Text) -> Known:
    """Chosen responses over rejected ones, ranked as labelled: pairs whose grades tie train in TRL
    too. Of several on a side, equal among themselves, a question of text is a user's turn."""
    sides = [_several(get(row, side, where), side, where) for side in SIDES]
    asked = question(row, where)
    if any(isinstance(row[side], list) for side in SIDES):
        asked = dataclasses.replace(asked, alone=False)
    fields = conversation(asked, [*sides[0], *sides[1]], where, how)
    fields["ranks"] = (0,) * len(sides[0]) + (1,) * len(sides[1])
    return fields | _grades(row, where) if len(fields["ranks"]) == 2 else fields


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
    columns = ("preferred_output", "non_preferred_output")
    [(_, request)] = objects([get(row, "input", where)], "input", where)
    refuse_context(request, ("messages", "tools", "parallel_tool_calls"), "input.", where)
    turns = messages(get(request, "messages", where, "input."), "input.messages", where)
    tools = tool_list(request.get("tools"), "input.tools", where)
    sides = [_several(get(row, field, where), field, where) for field in columns]
    fields = conversation(Question("input", turns, tools=tools), [*sides[0], *sides[1]], where, how)
    return fields | {"ranks": (0,) * len(sides[0]) + (1,) * len(sides[1])}


def transcripts(row: Row, where: str) -> Known:
    """Anthropic/hh-rlhf. Where the user has the last word, the assistant's answer is empty."""
    spoken = []
    for side in SIDES:
        said = text(get(row, side, where), side, where)
        if not is_transcript(said):
            raise fault(where, side, f"must begin with {HUMAN!r}, as the first row does")
        spoken.append(answered(told(said)))
    prompt, *responses = divide(spoken, SIDES, where)
    return {"prompt": prompt, "responses": tuple(responses), "ranks": (0, 1)} | _grades(row, where)


def texts(row: Row, where: str, *, how: Text) -> Known:
    """Two whole texts, whose prompt is the words that both begin with, as in TRL.

    Raises DataError where they begin with no common word, unless `how` says that they are raw:
    there is no prompt then, and the question may have been lost.
    """
    chosen, rejected = (text(get(row, side, where), side, where) for side in SIDES)
    shared = _shared_words(chosen, rejected)
    if how == "chat" or (how == "" and (not shared or is_told(chosen) or is_told(rejected))):
        problem = "is a whole text" if shared else "shares no first word with 'rejected'"
        problem += ", and no column says what was asked: name that one prompt; the source option "
        raise fault(where, "chosen", f"{problem}?text=raw reads whole texts as they stand")
    fields = {"prompt": chosen[:shared], "responses": (chosen[shared:], rejected[shared:])}
    return fields | {"ranks": (0, 1)} | _grades(row, where)


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
    numbered = enumerate(items(get(row, column, where), column, where))
    answers = [(f"{column}[{k}]", value) for k, value in numbered]
    asked = question(row, where)
    if how == "raw" and not asked.column:
        asked = Question("prompt", said="", alone=not (asked.turns or asked.system or asked.tools))
    fields = conversation(asked, answers, where, how)
    for name in ("ranks", "scores"):
        if row.get(name) is not None:
            fields[name] = tuple(items(row[name], name, where))
    if row.get("steps") is not None:
        numbered = enumerate(items(row["steps"], "steps", where))
        fields["steps"] = tuple(_steps(value, f"steps[{k}]", where) for k, value in numbered)
    for name in ORDERS:
        if (
            len(answers) > 1
            and not {"ranks", "scores"} & fields.keys()
            and row.get(name) is not None
        ):
            problem = "may say which response is better, and is not read: give ranks (0 the best), "
            raise fault(where, name, f"{problem}or leave it out with ?ignore={name}")
    return fields


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
    numbered = enumerate(items(get(row, "completions", where), "completions", where))
    steps = [text(step, f"completions[{t}]", where) for t, step in numbered]
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
    fields = conversation(question(row, where), answers, where, how, strip=False)
    return fields | {"steps": (ends,)}


def _label(value: object) -> object:
    """A step's label, a truth as a number; null is no label."""
    return math.nan if value is None else float(value) if isinstance(value, bool) else value
