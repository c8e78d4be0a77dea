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

import datetime
import decimal
import functools
import numbers
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxrm.data.comparison import Conversation, plain_text

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

HARMLESS = _names("by hash hashes licence license link links md5 sha uri url urls uuid")
"""Last words of names that say nothing of what was said, whatever they hold."""

LABELS = _names(
    """
    age agreement annotator annotators area author batch by categories category code confidence
    corpus count country counts created dataset datasets date day difficulty domain domains engine
    field file filename flag flags fold format gender generator grade grades group guid id ids idx
    index info judge judges key keys kind label labels lang language languages len length lengths
    level levels locale logp logprob logprobs logps margin meta metadata method metrics model
    models moderation month name names number origin path platform policy probability provider
    quality rank ranks rater rating ratings region reward rewards row safety score scores seed
    size source sources split stage stats status strategy subcategory subject subset tag tags task
    tasks temperature time timestamp tokens topic topics toxicity tstamp turns type types uid
    updated version votes weight weights winner worker workers year
    """
)
"""Last words of names that say nothing of what was said, if what they hold is as short as a
label."""


WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|\w+")
"""An ideograph is a word by itself."""

LONGEST = 6
"""Words of a label, which is one line."""

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

ESCAPED = {ord(character): f"%{ord(character):02X}" for character in ",&%"}
"""What parts names and options, as it is written within a name."""

Verdict = Literal["harmless", "mentioned", "context"]


def judge(name: str, value: object) -> Verdict:
    """What a column that is not read may be, by its name and what it holds."""
    if is_empty(value):
        return "harmless"
    if _normal(name) in CONTEXT or holds_messages(value):
        return "context"
    # One letter tells twins apart: model_a and model_b.
    word = next((word for word in reversed(_words(name)) if len(word) > 1), "")
    if word in HARMLESS or (word in LABELS and all(map(_is_label, _texts(value)))):
        return "harmless"
    if word in REMARKS:
        return "mentioned"
    return "context" if _holds_text(value) else "mentioned"


def _is_label(text: str) -> bool:
    """Whether text is as short as a label, or a code."""
    line = text.strip()
    return bool(CODE.fullmatch(line)) or ("\n" not in line and len(WORD.findall(line)) <= LONGEST)


def is_empty(value: object) -> bool:
    """Whether a value holds nothing: null, blank text, or an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | dict) and not value)


def listed(names: Iterable[str]) -> str:
    """Names as the source option `ignore` takes them."""
    return ",".join(name.translate(ESCAPED) for name in names)


def repeats(value: object, said: Collection[str]) -> bool:
    """Whether all texts in a value are among those that are `said`, white space around them
    aside."""
    texts = list(_texts(value))
    return bool(texts) and all(text.strip() in said for text in texts)


def contents(
    prompt: Conversation | str, responses: Sequence[Conversation] | Sequence[str]
) -> set[str]:
    """What a comparison's messages say, one by one and together; raw text as it is."""
    if isinstance(prompt, str):
        return {text.strip() for text in (prompt, *responses, *(prompt + r for r in responses))}
    turns = (message for part in (prompt, *responses) for message in part)
    whole = (plain_text(part) for part in (prompt, *responses))
    return {text.strip() for text in (*(m.content for m in turns), *whole)}


def is_message(value: object) -> bool:
    """Whether a value is an object that says who speaks, and what is said or called."""
    if not isinstance(value, dict):
        return False
    speaks = "role" in value and not {"content", "tool_calls"}.isdisjoint(value)
    return speaks or {"from", "value"} <= value.keys()


def holds_messages(value: object) -> bool:
    """Whether there is a message in a value that may be a list, of lists too."""
    if isinstance(value, list):
        return any(map(holds_messages, value))
    return is_message(value)


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
    if is_message(value):
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
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Za-z][a-z]*|\d+|[^\W\d_]+", name)
    words = tuple(word.lower() for word in parts)
    return tuple(word for word in words if not word.isdigit()) or words or ("",)
