"""Does a chat template write what a conversation holds?

A template may leave out what it was not made for: tool calls, thoughts, names, descriptions of
tools, the turns of a tool. A model would then read another conversation than the one that was
judged, and two answers that differ in such a part alone would get one reward. So each kind of part
is tried once, where it first occurs: written differently, does the text differ?

A part is tried as the conversation's last, since templates leave the thoughts of earlier turns out
on purpose. What is written elsewhere is not tried: the id of the call that a tool answers, which is
no more than a link, and the name of a tool that was called by it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from jaxrm.data.comparison import Comparison, Conversation, Message, fault
from jaxrm.data.tokenizer import ChatTokenizer

PARTS = ("tool_calls", "reasoning_content", "name")


def check_written(comparison: Comparison, tokenizer: ChatTokenizer) -> None:
    """Raises DataError, naming the field, for a part that the template does not write.

    The comparison's conversations must be such that the template takes them whole.
    """
    written, tools = tokenizer.written, comparison.tools
    if tools is not None and "tools" not in written:
        whole = ((comparison.prompt, given) for given in (tools, None))
        _remember("tools", _differ(*whole, 0, tokenizer), comparison, "tools", tokenizer)
    length = len(comparison.prompt)
    for k, response in enumerate(comparison.responses):
        messages = comparison.prompt + response
        for i in range(length if k else 0, len(messages)):
            field = f"prompt[{i}]" if i < length else f"responses[{k}][{i - length}]"
            for part, kind, changed in _changes(messages, i):
                if kind not in written and not (kind == SYSTEM and tokenizer.folds_system):
                    other = (*messages[:i], changed, *messages[i + 1 :])
                    differ = _differ((messages, tools), (other, tools), i, tokenizer)
                    _remember(kind, differ, comparison, f"{field}.{part}", tokenizer)


SYSTEM = "content of the first message, system"


def _changes(messages: Conversation, i: int) -> Iterator[tuple[str, str, Message]]:
    """Each part of message i, its kind, and the message with that part otherwise."""
    message = messages[i]
    if message.content.strip():
        place = " of the first message" if i == 0 else " beside calls" * bool(message.tool_calls)
        kind = f"content{place}, {message.role}"
        # At the beginning: what templates cut off or look for stands at ends.
        yield "content", kind, dataclasses.replace(message, content=f"so {message.content}")
    for part in PARTS:
        value = getattr(message, part)
        if value is not None and not (part == "name" and value in _called(messages[:i])):
            yield part, f"{part}, {message.role}", dataclasses.replace(message, **{part: None})


def _called(messages: Conversation) -> list[object]:
    """The names of functions that were called: a tool that answers need not say its own again."""
    calls = (call.get("function") for message in messages for call in message.tool_calls or ())
    return [function.get("name") for function in calls if isinstance(function, dict)]


Given = tuple[Conversation, list[dict] | None]
"""Messages and tools."""


def _differ(one: Given, other: Given, i: int, tokenizer: ChatTokenizer) -> bool:
    """Whether the texts of two conversations differ, up to message i or to one that follows."""
    ends = range(i + 1, len(one[0]) + 1)
    return any(_text(one, end, tokenizer) != _text(other, end, tokenizer) for end in ends)


def _text(given: Given, end: int, tokenizer: ChatTokenizer) -> str | None:
    """The first messages as the template writes them; None where it refuses them."""
    messages, tools = given[0][:end], given[1]
    with contextlib.suppress(Exception):  # an expression of a template raises what it likes
        return tokenizer.render(messages, opened=messages[-1].role != "assistant", tools=tools)
    return None


def _remember(
    kind: str, differ: bool, comparison: Comparison, field: str, tokenizer: ChatTokenizer
) -> None:
    """Keeps in mind that a kind of part is written, or raises DataError where it is not."""
    if not differ:
        problem = f"the chat template of {tokenizer.source} does not write it: take another one"
        if (part := field.rpartition(".")[2]) != "content":
            problem += f", or leave it out with the source option ?ignore={part}"
        raise fault(comparison.where, field, problem)
    tokenizer.written.add(kind)
