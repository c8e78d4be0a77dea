"""Columns that a form does not read: which of them may be left out, and which may hold context.

Most columns of public data say nothing of the conversation: ids, sources, names of models, grades
of other kinds. A column that may hold the question, a system prompt, a history or a tool must not
vanish, for its rows would be read as other rows than they are. By its name or by what it holds, a
column that is not read is

- harmless: nothing is said of it;
- mentioned, once: numbers, truths and codes of an unknown name, and what annotators wrote;
- context, perhaps: texts and messages of any other name. It is an error that names the column,
  unless the row's conversation says the same already.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import functools
import json
import numbers
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from jaxrm.data.comparison import fault, plain_text

Row = dict[str, object]


@dataclass(frozen=True)
class Unreadable:
    """A value of a table that Python cannot hold, and why. It is of no type that a field may have,
    so whatever needs the field refuses it."""

    reason: str
    may_hold_text: bool


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


CONTEXT = _names(
    """
    audio body chat context contexts conversation conversations dialog dialogue document documents
    functions history human image images input inputs instruction instructions message messages
    passage post prompt prompts queries query question questions system system_message
    system_prompt text tool tools user video
    """
)
"""Names of what belongs to a conversation, whatever a column of that name holds."""

HARMLESS = _names(
    """
    annotator annotators author batch by count counts created dataset datasets date day file
    filename generator grade grades guid hash hashes id ids idx index judge judges lang language
    languages len length lengths licence license link links locale logp logprob logprobs logps
    margin md5 meta metadata metrics model models moderation month number origin path platform
    policy probability provider rank ranks rater rating ratings reward rewards row score scores
    seed sha source sources split stage stats subset temperature time timestamp tokens toxicity
    tstamp turns uid updated uri url urls uuid version votes weight weights winner worker workers
    year
    """
)
"""Last words of names that say nothing of what was said."""

LABELS = _names(
    """
    age agreement area categories category code confidence corpus country difficulty domain
    domains engine field flag flags fold format gender group info key keys kind label labels level
    levels method name names quality region safety size status strategy subcategory subject tag
    tags task tasks topic topics type types
    """
)
"""Last words of names that say nothing of what was said, if what they hold is as short as a
label."""

LABEL = re.compile(r"\s*\S{1,40}([ \t]+\S{1,40}){0,3}\s*")
"""A line of four words at most."""

CODE = re.compile(r"\s*([!-~]{1,2}|[!-~]*[-\d_./:@#][!-~]*)\s*")
"""A grade, an id, a path, the name of a model: one word that no sentence has."""

REMARKS = _names(
    """
    critique critiques elaboration explanation explanations feedback feedbacks justification
    rationale rationales reason reasons
    """
)
"""Last words of names of what somebody wrote about the responses."""

SAY_NOTHING = (
    numbers.Number,
    decimal.Decimal,
    datetime.date,
    datetime.time,
    datetime.timedelta,
)
"""What is no text; truths are numbers."""

Verdict = Literal["harmless", "mentioned", "context"]


def judge(name: str, value: object) -> Verdict:
    """What a column that is not read may be, by its name and what it holds."""
    if is_empty(value):
        return "harmless"
    if _normal(name) in CONTEXT or _holds_messages(value):
        return "context"
    # One letter tells twins apart: model_a and model_b.
    word = next((word for word in reversed(_words(name)) if len(word) > 1), "")
    is_label = word in LABELS and all(map(LABEL.fullmatch, _texts(value)))
    if word in HARMLESS or is_label:
        inside = (key for key, inner in _inside(value) if not is_empty(inner))
        return "context" if any(_normal(key) in CONTEXT for key in inside) else "harmless"
    if word in REMARKS:
        return "mentioned"
    return "context" if _holds_text(value) else "mentioned"


def is_empty(value: object) -> bool:
    """Whether a value holds nothing: null, blank text, or an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | dict) and not value)


def repeats(value: object, said: Collection[str]) -> bool:
    """Whether all texts in a value are among those that are `said`, white space around them
    aside."""
    texts = list(_texts(value))
    return bool(texts) and all(text.strip() in said for text in texts)


def contents(prompt, responses) -> set[str]:
    """What a comparison's messages say, one by one and together; raw text as it is."""
    if isinstance(prompt, str):
        return {text.strip() for text in (prompt, *responses, *(prompt + r for r in responses))}
    turns = (message for part in (prompt, *responses) for message in part)
    whole = (plain_text(part) for part in (prompt, *responses))
    return {text.strip() for text in (*(m.content for m in turns), *whole)}


def without(row: Row, ignored: Collection[str]) -> Row:
    """A row without the columns of these names, and its messages without such fields."""
    if not ignored:
        return row
    return {name: _without(value, ignored) for name, value in row.items() if name not in ignored}


def unserialised(row: Row, where: str) -> Row:
    """A row whose messages are no texts: those that a data frame has left as JSON, or as Python
    writes them, are read.

    Raises DataError, naming the column, for text that looks like messages and is neither.
    """
    told = {name: _unserialised(name, value, where) for name, value in row.items()}
    # An answer may be JSON of messages, if the other is not.
    sides = [name for name in ("chosen", "rejected") if isinstance(row.get(name), str)]
    if len({isinstance(told[name], str) for name in sides}) > 1:
        told |= {name: row[name] for name in sides}
    return told


SERIALISED = re.compile(r"""\s*\[?\s*\{\s*['"](role|from|content|value)['"]\s*:""")


def _unserialised(name: str, value: object, where: str) -> object:
    if not (isinstance(value, str) and SERIALISED.match(value)):
        return value
    for parse, problems in (
        (json.loads, (ValueError, RecursionError)),
        (ast.literal_eval, (ValueError, SyntaxError, MemoryError, RecursionError)),
    ):
        try:
            read = parse(value.strip())
        except problems:
            continue
        return read if _holds_messages(read) else value
    problem = "looks like messages written as text, but is neither JSON nor a Python list of them"
    raise fault(where, name, problem)


def _without(value: object, ignored: Collection[str]) -> object:
    if isinstance(value, list):
        return [_without(item, ignored) for item in value]
    if isinstance(value, dict):
        kept = {"role", "content", "from", "value"} if _is_message(value) else value.keys()
        return {
            name: _without(part, ignored)
            for name, part in value.items()
            if name in kept or name not in ignored
        }
    return value


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and (
        {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()
    )


def _holds_messages(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_holds_messages, value))
    return _is_message(value)


def _inside(value: object) -> Iterator[tuple[str, object]]:
    """Every field of the objects in a value, at any depth."""
    if isinstance(value, list):
        for item in value:
            yield from _inside(item)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name, part
            yield from _inside(part)


def _holds_text(value: object) -> bool:
    """Whether a value holds anything but codes, numbers, truths, dates and nothing."""
    if isinstance(value, list):
        return any(map(_holds_text, value))
    if isinstance(value, dict):
        return any(judge(name, part) == "context" for name, part in value.items())
    if isinstance(value, str):
        return bool(value.strip()) and not CODE.fullmatch(value)
    if isinstance(value, Unreadable):
        return value.may_hold_text
    return not (value is None or isinstance(value, SAY_NOTHING))


def _texts(value: object) -> Iterator[str]:
    """The texts of a value, at any depth; of messages what they say."""
    if _is_message(value):
        yield from _texts(value.get("content", value.get("value")))
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    elif value is not None:
        yield str(value)


def _normal(name: str) -> str:
    return "_".join(_words(name))


@functools.lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    """The words of a name: "promptSource", "prompt-source" and "prompt_source" are the same."""
    found = re.findall(r"[A-Z]+(?![a-z])|[A-Za-z][a-z]*|\d+|[^\W\d_]+", name)
    words = tuple(word.lower() for word in found)
    return tuple(word for word in words if not word.isdigit()) or words or ("",)
