"""Does a chat template write what a conversation holds?

A template may leave out what it was not made for: tool calls, thoughts, names, descriptions of
tools, the turns of a tool. A model would then read another conversation than the one that was
judged, and two answers that differ in such a part alone would get one reward. So each kind of part
is tried where it first occurs, and wherever its words are not to be seen in the text: written
differently, does the text differ?

A part is tried in the last message of a conversation that ends with it, since templates leave the
thoughts of earlier turns out on purpose; what is said, in the whole as well. What is written
elsewhere is not tried: the id of the call that a tool answers, which is no more than a link, and
the name of a tool that was called by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxrm.data.comparison import Comparison, Conversation, fault
from jaxrm.data.tokenizer import ChatTokenizer


def check_written(comparison: Comparison, texts: Sequence[str], tokenizer: ChatTokenizer) -> None:
    """Raises DataError, naming the field, for a part that the template does not write.

    Args:
        texts: what the template makes of the prompt with each response, whole.
    """
    tools, length = comparison.tools, len(comparison.prompt)
    if tools is not None:
        whole = ((comparison.prompt, offered) for offered in (tools, None))
        names = [name for tool in tools for name in _names(tool.get("function", tool))]
        if not ("tools" in tokenizer.written and _shows(texts[0], names)):
            _remember("tools", _differ(*whole, 0, tokenizer), comparison, "tools", tokenizer)
    for k, response in enumerate(comparison.responses):
        messages = comparison.prompt + response
        for i in range(length if k else 0, len(messages)):
            field = f"prompt[{i}]" if i < length else f"responses[{k}][{i - length}]"
            for change in _changes(messages, i):
                if change.kind in tokenizer.written and _shows(texts[k], change.words):
                    continue
                if tokenizer.folds_system and i == 0 and messages[i].role == "system":
                    continue
                changed = dataclasses.replace(messages[i], **{change.part: change.value})
                other = (*messages[:i], changed, *messages[i + 1 :])
                until = len(messages) - 1 if change.in_whole else i
                differ = _differ((messages, tools), (other, tools), until, tokenizer)
                field_of_part = f"{field}.{change.part}"
                is_all = not messages[i].content.strip()
                _remember(change.kind, differ, comparison, field_of_part, tokenizer, is_all=is_all)


class _Change(NamedTuple):
    """A part of a message: its name, its kind, words that show it, another value for it, and
    whether it must show in the whole conversation rather than as its last."""

    part: str
    kind: str
    words: list[str]
    value: object
    in_whole: bool


def _changes(messages: Conversation, i: int) -> Iterator[_Change]:
    """Each part of message i."""
    message = messages[i]

    def change(
        part: str, words: list[str], value: object, detail: str = "", in_whole: bool = False
    ) -> _Change:
        kind = f"{part}{detail}{' in whole' * in_whole}, {message.role}"
        return _Change(part, kind, words, value, in_whole)

    if said := message.content.strip():
        detail = " of the first message" if i == 0 else " beside calls" * bool(message.tool_calls)
        # Thoughts stand at the beginning.
        yield change("content", [said], f"so {message.content}", detail)
        yield change("content", [said], f"so {message.content} so", detail, in_whole=True)
    if thought := message.reasoning_content:
        yield change("reasoning_content", [thought.strip()], None)
    if message.name is not None and message.name not in _called(messages[:i]):
        yield change("name", [message.name], None)
    for j, call in enumerate(message.tool_calls or ()):
        before, after = message.tool_calls[:j], message.tool_calls[j + 1 :]
        function = call.get("function", call)
        yield change("tool_calls", _names(function), [*before, *after] or None)
        if isinstance(function, dict) and function.get("arguments"):
            bare = function | {"arguments": {}}
            silent = call | {"function": bare} if "function" in call else bare
            words = list(_leaves(function["arguments"]))
            yield change("tool_calls", words, [*before, silent, *after], " with arguments")


def _called(messages: Conversation) -> list[str]:
    """The names of functions that were called: a tool that answers need not say its own again."""
    calls = (call for message in messages for call in message.tool_calls or ())
    return [name for call in calls for name in _names(call.get("function", call))]


def _names(function: object) -> list[str]:
    """The name of a function, if it has one."""
    name = function.get("name") if isinstance(function, dict) else None
    return [name] if isinstance(name, str) else []


def _leaves(value: object) -> Iterator[str]:
    """Texts and numbers in arguments, as JSON has them."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield json.dumps(value, ensure_ascii=False).strip('"')


def _shows(text: str, words: Iterable[str]) -> bool:
    return all(word in text for word in words)


Given = tuple[Conversation, list[dict] | None]
"""Messages and tools."""


def _differ(one: Given, other: Given, i: int, tokenizer: ChatTokenizer) -> bool:
    """Whether the texts of two conversations differ, up to message i or to one that follows."""
    ends = range(i + 1, len(one[0]) + 1)
    return any(_text(one, end, tokenizer) != _text(other, end, tokenizer) for end in ends)


def _text(conversation: Given, end: int, tokenizer: ChatTokenizer) -> str | None:
    """The first messages as the template writes them; None where it refuses them."""
    messages, tools = conversation[0][:end], conversation[1]
    with contextlib.suppress(Exception):  # an expression of a template raises what it likes
        return tokenizer.render(messages, opened=messages[-1].role != "assistant", tools=tools)
    return None


def _remember(
    kind: str,
    differ: bool,
    comparison: Comparison,
    field: str,
    tokenizer: ChatTokenizer,
    *,
    is_all: bool = False,
) -> None:
    """Keeps in mind that a kind of part is written, or raises DataError where it is not, which it
    may be without unless `is_all` that was said."""
    if not differ:
        problem = f"the chat template of {tokenizer.source} does not write it: take another one"
        if (part := field.rpartition(".")[2]) != "content" and not is_all:
            problem += f", or leave it out with the source option ?ignore={part}"
        raise fault(comparison.where, field, problem)
    tokenizer.written.add(kind)
