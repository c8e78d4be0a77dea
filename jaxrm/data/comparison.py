"""What the project knows of one prompt: its responses and how they compare.

Structure is checked here for every source of comparisons: types, roles, lengths, finite numbers.
Content is not: an empty answer is a fact about the data, which training counts and leaves out
(`jaxrm.data.training`) and evaluation scores.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxrm.errors import DataError

ROLES = ("system", "user", "assistant", "tool")

DICTIONARIES = "jaxrm.data.fields.messages makes messages of a list of dictionaries"
"""What to do with messages as transformers has them."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, with all that a chat template may write of it.

    Attributes:
        role: one of `ROLES`.
        content: what is said; "" beside tool calls that stand alone.
        tool_calls: the functions that an assistant calls, as transformers' chat templates take
            them: `{"type": "function", "function": {"name": ..., "arguments": {...}}}`.
        reasoning_content: what the assistant thought before it spoke.
        name: of who speaks, or of the tool that answers.
        tool_call_id: the id of the call that a tool answers.
    """

    role: str
    content: str
    tool_calls: list[dict] | None = dataclasses.field(
        default=None, hash=False
    )  # equal messages hash alike
    reasoning_content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None

    def row(self) -> dict[str, object]:
        """What there is of it, by name: what a template gets, and what a file holds."""
        parts = ((part.name, getattr(self, part.name)) for part in dataclasses.fields(self))
        return {name: value for name, value in parts if value is not None}


Conversation = tuple[Message, ...]

Values = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
"""Those of a column."""


class Step(NamedTuple):
    """A step of a response.

    Attributes:
        end: characters of the response up to the step's end, counted in its last message.
        label: how good the step is, as whoever labelled it has it (1 right, 0 wrong, a share, a
            class); NaN where it is not labelled.
    """

    end: int
    label: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """One prompt, K >= 1 responses to it, and what is known of them.

    A conversation (`prompt` of messages) is rendered by a chat template; raw text (`prompt` of type
    str, and then every response too) is not. Raises DataError naming `where` and the field.

    Attributes:
        prompt: the turns before the responses, or raw text.
        responses: K continuations, each the messages after the prompt (an assistant message last).
        ranks: [K] whole numbers, 0 the best, ties share a rank; None where the order is unknown.
        scores: [K] finite grades of the responses, higher is better.
        margin: by how much the best response is better, in the units of whoever labelled it; None
            where it is unknown.
        attributes: [K][A] several grades of each response, NaN where one is not labelled.
        steps: [K] the steps of each response in order, any number of them; text between two steps,
            or after the last, belongs to none.
        columns: further finite numbers by name: one of a pair, [K] of the responses, or [K][W].
        tools: descriptions of the functions that a conversation may call, as JSON schemas.
        subset: the part of a benchmark that this belongs to.
        id: the row's own name.
        where: the file and row, for error messages.
        undecided: text of which nobody has said whether it is raw or a turn of a conversation: a
            tokenizer's chat template decides (`jaxrm.data.chat`).
    """

    prompt: Conversation | str
    responses: tuple[Conversation, ...] | tuple[str, ...]
    ranks: tuple[int, ...] | None = None
    scores: tuple[float, ...] | None = None
    margin: float | None = None
    attributes: tuple[tuple[float, ...], ...] | None = None
    steps: tuple[tuple[Step, ...], ...] | None = None
    columns: Mapping[str, Values] = dataclasses.field(default_factory=dict, hash=False)
    tools: list[dict] | None = dataclasses.field(default=None, hash=False)
    subset: str = ""
    id: str = ""
    where: str = ""
    undecided: bool = dataclasses.field(default=False, compare=False)

    def __post_init__(self):
        check_text(self.id, "id", self.where)
        check_text(self.subset, "subset", self.where)
        if not isinstance(self.responses, tuple) or not self.responses:
            problem = f"expected a tuple of at least one response, found {found(self.responses)}"
            self._fail("responses", problem)
        if isinstance(self.prompt, str):
            check_text(self.prompt, "prompt", self.where)
            for k, response in enumerate(self.responses):
                check_text(response, f"responses[{k}]", self.where)
        else:
            check_messages(self.prompt, "prompt", self.where)
            for k, response in enumerate(self.responses):
                check_answer(response, f"responses[{k}]", self.where)
                if self.prompt[-1].role == response[0].role == "assistant":
                    problem = "ends with an assistant message, and a response begins with one"
                    self._fail("prompt", problem)
        self._check_tools()
        self._check_labels()

    @classmethod
    def pair(
        cls,
        prompt: Sequence[Message] | str,
        chosen: Sequence[Message] | str,
        rejected: Sequence[Message] | str,
        **fields,
    ) -> Comparison:
        """A chosen response over a rejected one.

        Text after a prompt of messages is the assistant's answer. `fields` are further fields.
        """
        prompt = prompt if isinstance(prompt, str) else tuple(prompt)
        responses = (answer(prompt, chosen), answer(prompt, rejected))
        return cls(prompt, responses, ranks=(0, 1), **fields)

    @property
    def is_tie(self) -> bool:
        """Whether it has ranks, of several responses, and no two of them differ."""
        return len(self.responses) > 1 and self.ranks is not None and len(set(self.ranks)) == 1

    def as_conversation(self) -> Comparison:
        """Raw text as one turn of the user, and of the assistant in each response."""
        responses = tuple((Message("assistant", text),) for text in self.responses)
        prompt = (Message("user", self.prompt),)
        return dataclasses.replace(self, prompt=prompt, responses=responses, undecided=False)

    def _check_tools(self) -> None:
        if self.tools is None:
            return
        if isinstance(self.prompt, str):
            self._fail("tools", "only a conversation has tools, and this is text")
        check_objects(self.tools, "tools", self.where)

    def _check_labels(self) -> None:
        fields = ("ranks", "scores", "attributes", "steps")
        labels = {field: getattr(self, field) for field in fields}
        labels |= {name: each for name, each in self.columns.items() if isinstance(each, tuple)}
        for field, values in labels.items():
            if values is not None and len(values) != len(self.responses):
                self._fail(field, f"has {len(values)} entries for {len(self.responses)} responses")
        for k, rank in enumerate(self.ranks or ()):
            if not isinstance(rank, numbers.Integral) or isinstance(rank, bool) or rank < 0:
                self._fail(f"ranks[{k}]", f"expected a whole number >= 0, found {rank!r}")
        for k, score in enumerate(self.scores or ()):
            check_number(score, f"scores[{k}]", self.where)
        if self.margin is not None:
            check_number(self.margin, "margin", self.where)
        for name, values in self.columns.items():
            if name in RESERVED:
                self._fail(f"columns[{name}]", "is the name of what a comparison has anyway")
            if not isinstance(values, tuple):
                check_number(values, name, self.where)
            elif isinstance(values[0], tuple):
                self._check_table(name, values, check_number)
            else:
                for k, value in enumerate(values):
                    check_number(value, f"{name}[{k}]", self.where)
        self._check_table("attributes", self.attributes or (), check_label)
        for k, steps in enumerate(self.steps or ()):
            self._check_steps(steps, k)

    def _check_table(self, field: str, table: Sequence, check: Callable) -> None:
        for k, row in enumerate(table):
            if not isinstance(row, Sequence) or len(row) != len(table[0]) or not row:
                self._fail(f"{field}[{k}]", "every response needs as many numbers, at least one")
            for w, value in enumerate(row):
                check(value, f"{field}[{k}][{w}]", self.where)

    def _check_steps(self, steps: Sequence[Step], k: int) -> None:
        before, length = 0, len(last_text(self.responses[k]))
        for t, step in enumerate(steps):
            field = f"steps[{k}][{t}]"
            if not isinstance(step, Step):
                self._fail(field, f"expected a step, found {kind(step)}")
            if not isinstance(step.end, numbers.Integral) or isinstance(step.end, bool):
                self._fail(f"{field}.end", f"expected a whole number, found {step.end!r}")
            if not before < step.end <= length:
                problem = f"must lie after {before} and within the {length} characters of the text"
                self._fail(f"{field}.end", f"{problem}, found {step.end}")
            check_label(step.label, f"{field}.label", self.where)
            before = step.end

    def _fail(self, field: str, problem: str):
        raise fault(self.where, field, problem)


RESERVED = {field.name for field in dataclasses.fields(Comparison)} | {"raw", "response_score"}
"""No column's name: in a row, or a tree, it is another part of a comparison."""


def plain_text(text: Sequence[Message] | str) -> str:
    """The contents of messages and the tools they call (as JSON) as one text, a line's end between
    them; text as it is."""
    if isinstance(text, str):
        return text
    said = ((m.content, json.dumps(m.tool_calls) if m.tool_calls else None) for m in text)
    return "\n".join(part for parts in said for part in parts if part is not None)


def last_text(text: Conversation | str) -> str:
    """The contents of the last message; text as it is."""
    return text if isinstance(text, str) else text[-1].content


def join_steps(
    texts: Sequence[str], labels: Sequence[float] | None = None, separator: str = "\n"
) -> tuple[str, tuple[Step, ...]]:
    """Steps as one text with `separator` between them, and where each ends in it.

    Args:
        texts: the steps, none of them empty.
        labels: a number for each, NaN where there is none; all NaN without them.
        separator: belongs to no step.

    Raises ValueError for an empty step, or labels that do not match the steps.
    """
    labels = [math.nan] * len(texts) if labels is None else labels
    if len(labels) != len(texts) or not all(texts):
        raise ValueError(f"{len(labels)} labels for {len(texts)} steps, none of them to be empty")
    ends = (len(separator.join(texts[: t + 1])) for t in range(len(texts)))
    return separator.join(texts), tuple(Step(*both) for both in zip(ends, labels, strict=True))


def has_blank(text: Conversation | str) -> bool:
    """Whether the text, or one of the messages, is white space alone. A system turn may be, for it
    says nothing, and what a tool answers, and a turn that calls tools."""
    if isinstance(text, str):
        return not text.strip()
    turns = (m for m in text if m.role in ("user", "assistant") and not m.tool_calls)
    return any(not message.content.strip() for message in turns)


def check_text(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise fault(where, field, f"expected text, found {kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        problem = f"character {error.start} is half of a surrogate pair, not text"
        raise fault(where, field, problem) from error


def check_messages(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is a non-empty tuple of messages with known roles."""
    if not isinstance(value, tuple) or not value:
        problem = f"expected text or a non-empty tuple of messages, found {found(value)}"
        raise fault(where, field, problem + (f": {DICTIONARIES}" if value else ""))
    for i, message in enumerate(value):
        check_message(message, f"{field}[{i}]", where)


def check_message(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is a message with a known role."""
    if not isinstance(value, Message):
        how = f": {DICTIONARIES}" if isinstance(value, Mapping) else ""
        raise fault(where, field, f"expected a message, found {kind(value)}{how}")
    if value.role not in ROLES:
        raise fault(where, f"{field}.role", f"{value.role!r} is not one of {', '.join(ROLES)}")
    check_text(value.content, f"{field}.content", where)
    for part in ("reasoning_content", "name", "tool_call_id"):
        if getattr(value, part) is not None:
            check_text(getattr(value, part), f"{field}.{part}", where)
    if value.tool_calls is not None:
        check_objects(value.tool_calls, f"{field}.tool_calls", where)


def check_objects(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is a non-empty list of objects that JSON can hold."""
    if not isinstance(value, list) or not value:
        raise fault(where, field, "expected a non-empty list of objects")
    for i, item in enumerate(value):
        if not isinstance(item, dict):
            raise fault(where, f"{field}[{i}]", f"expected an object, found {kind(item)}")
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise fault(where, field, f"holds what JSON cannot: {error}") from error


def check_answer(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is messages that end with the assistant's."""
    check_messages(value, field, where)
    if value[-1].role != "assistant":
        raise fault(where, field, f"must end with an assistant message, not {value[-1].role}")


def check_number(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is a finite number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise fault(where, field, f"expected a number, found {kind(value)}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of a float
        finite = False
    if not finite:
        raise fault(where, field, f"must be finite, found {value!r}")


def check_label(value: object, field: str, where: str) -> None:
    """Raises DataError unless `value` is a finite number, or NaN for what is not labelled."""
    if not (isinstance(value, float) and math.isnan(value)):
        check_number(value, field, where)


def fault(where: str, field: str, problem: str) -> DataError:
    """The error for one field of one row."""
    return DataError(f"{where or 'comparison'}: field '{field}': {problem}")


def answer(prompt: Conversation | str, response: Sequence[Message] | str) -> Conversation | str:
    """`response` in the form that `prompt` asks for: text answers messages as the assistant."""
    if isinstance(prompt, str) or not isinstance(response, str):
        return response if isinstance(response, str) else tuple(response)
    return (Message("assistant", response),)


def kind(value: object) -> str:
    """The type of a value in the words of a data file."""
    names = {type(None): "null", bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def found(value: object) -> str:
    """`kind`, and whether there is nothing in it."""
    return kind(value) + (" of nothing" if isinstance(value, list | tuple) and not value else "")


def common_length(a: Sequence, b: Sequence) -> int:
    """How many items (characters, messages) two sequences share from their start."""
    different = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(different, min(len(a), len(b)))
