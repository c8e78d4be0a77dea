"""What the project knows of one prompt: its responses and how they compare.

Structure is checked here, once, for every source of comparisons: types, roles, lengths, finite numbers.
Content is not: an empty answer is a fact about the data, which training counts and leaves out
(`jaxrm.data.filters`) and evaluation scores.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

from jaxrm.errors import DataError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


Conversation = tuple[Message, ...]


@dataclass(frozen=True)
class Comparison:
    """One prompt, K >= 1 responses to it, and what is known of them.

    A conversation (`prompt` of messages) is rendered by a chat template; raw text (`prompt` of type
    str, and then every response too) is not. Raises DataError naming `where` and the field at fault.

    Attributes:
        prompt: the turns before the responses, or raw text.
        responses: K continuations, each the messages after the prompt (an assistant message last).
        ranks: [K] whole numbers, 0 the best, ties share a rank; None where the order is unknown.
        scores: [K] finite grades of the responses, higher is better.
        margin: by how much the best response is better, in the units of whoever labelled it.
        attributes: [K][A] several grades of each response, NaN where one is not labelled.
        subset: the part of a benchmark that this belongs to.
        id: the row's own name.
        where: the file and row, for error messages.
    """

    prompt: Conversation | str
    responses: tuple[Conversation, ...] | tuple[str, ...]
    ranks: tuple[int, ...] | None = None
    scores: tuple[float, ...] | None = None
    margin: float = 0.0
    attributes: tuple[tuple[float, ...], ...] | None = None
    subset: str = ""
    id: str = ""
    where: str = ""

    def __post_init__(self):
        self._check_text("id", self.id)
        self._check_text("subset", self.subset)
        if not isinstance(self.responses, tuple) or not self.responses:
            self._fail("responses", "a comparison needs at least one response")
        if isinstance(self.prompt, str):
            self._check_text("prompt", self.prompt)
            for k, response in enumerate(self.responses):
                self._check_text(f"responses[{k}]", response)
        else:
            self._check_messages("prompt", self.prompt)
            for k, response in enumerate(self.responses):
                self._check_response(f"responses[{k}]", response)
        self._check_labels()

    @classmethod
    def pair(
        cls,
        prompt: Sequence[Message] | str,
        chosen: Sequence[Message] | str,
        rejected: Sequence[Message] | str,
        **known,
    ) -> Comparison:
        """A chosen response over a rejected one.

        Text after a prompt of messages is the assistant's answer. `known` are further fields.
        """
        prompt = prompt if isinstance(prompt, str) else tuple(prompt)
        responses = (answer(prompt, chosen), answer(prompt, rejected))
        return cls(prompt, responses, ranks=(0, 1), **known)

    def _check_response(self, field: str, response: object) -> None:
        self._check_messages(field, response)
        if response[-1].role != "assistant":
            self._fail(field, "must end with an assistant message")
        if self.prompt[-1].role == response[0].role == "assistant":
            self._fail("prompt", f"ends with an assistant message, and {field} begins with one")

    def _check_messages(self, field: str, messages: object) -> None:
        if not isinstance(messages, tuple) or not messages:
            self._fail(field, "must be text or a non-empty list of messages")
        for i, message in enumerate(messages):
            if not isinstance(message, Message):
                self._fail(f"{field}[{i}]", f"expected a message, found {kind(message)}")
            if message.role not in ROLES:
                roles = ", ".join(ROLES)
                self._fail(f"{field}[{i}].role", f"{message.role!r} is not one of {roles}")
            self._check_text(f"{field}[{i}].content", message.content)

    def _check_text(self, field: str, text: object) -> None:
        if not isinstance(text, str):
            self._fail(field, f"expected text, found {kind(text)}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            self._fail(field, f"character {error.start} is half of a surrogate pair, not text")

    def _check_labels(self) -> None:
        for field in ("ranks", "scores", "attributes"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.responses):
                self._fail(field, f"has {len(values)} entries for {len(self.responses)} responses")
        for k, rank in enumerate(self.ranks or ()):
            if not isinstance(rank, numbers.Integral) or isinstance(rank, bool) or rank < 0:
                self._fail(f"ranks[{k}]", f"expected a whole number >= 0, found {rank!r}")
        for k, score in enumerate(self.scores or ()):
            self._check_number(f"scores[{k}]", score)
        self._check_number("margin", self.margin)
        for k, row in enumerate(self.attributes or ()):
            if len(row) != len(self.attributes[0]) or not row:
                self._fail(f"attributes[{k}]", "every response needs the same, non-zero number")
            for a, value in enumerate(row):
                self._check_number(f"attributes[{k}][{a}]", value, unlabelled=True)

    def _check_number(self, field: str, value: object, unlabelled: bool = False) -> None:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            self._fail(field, f"expected a number, found {kind(value)}")
        if unlabelled and math.isnan(value):
            return
        try:
            finite = math.isfinite(value)
        except OverflowError:  # a whole number beyond the range of a float
            finite = False
        if not finite:
            self._fail(field, f"must be finite, found {value!r}")

    def _fail(self, field: str, problem: str):
        raise DataError(f"{self.where or 'comparison'}: field '{field}': {problem}")


def answer(prompt: Conversation | str, response: Sequence[Message] | str) -> Conversation | str:
    """`response` in the form that `prompt` asks for: text answers messages as the assistant."""
    if isinstance(prompt, str) or not isinstance(response, str):
        return response if isinstance(response, str) else tuple(response)
    return (Message("assistant", response),)


def kind(value: object) -> str:
    """The type of a value in the words of a data file."""
    names = {type(None): "null", bool: "a boolean", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
