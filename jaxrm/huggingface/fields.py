"""Typed reading of a ``config.json``, with errors that name the file and the field."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Set
from typing import Any, TypeVar

from jaxrm.errors import ModelFileError, OptionError

T = TypeVar("T")

_NUMBERS = {int: ((int,), "a whole number"), float: ((int, float), "a number")}


class Fields:
    """The contents of a ``config.json``, or of an object in it.

    Attributes:
      raw: the contents.
      where: names the file, and the object, in error messages.
      seen: the names that were asked for.
    """

    def __init__(self, raw: Mapping[str, Any], where: str):
        self.raw, self.where, self.seen = raw, where, set[str]()

    def error(self, name: str, problem: str) -> ModelFileError:
        """What to raise about the field `name`."""
        value = repr(self.raw[name]) if name in self.raw else "missing"
        return ModelFileError(f"{self.where}: {name} ({value}) {problem}")

    def value(self, name: str, default: Any = None) -> Any:
        """The field as it is; null counts as missing."""
        self.seen.add(name)
        value = self.raw.get(name)
        return default if value is None else value

    def count(self, name: str, default: int | None = None) -> int:
        """A positive whole number; without a default it must be there."""
        value = self.value(name, default)
        if type(value) is not int or value < 1:
            raise self.error(name, "must be a positive integer")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number; without a default it must be there."""
        value = self.value(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.error(name, "must be a positive number")
        return float(value)

    def cap(self, name: str, default: float | None = None) -> float | None:
        """A bound, where null means none; `default` where the field is missing."""
        self.seen.add(name)
        return None if self.raw.get(name, default) is None else self.number(name, default)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.value(name, default)
        if type(value) is not bool:
            raise self.error(name, "must be true or false")
        return value

    def token_id(self, name: str) -> int | None:
        """An id, or null."""
        value = self.value(name)
        if value is not None and type(value) is not int:
            raise self.error(name, "must be a token id or null")
        return value

    def token_ids(self, name: str) -> int | tuple[int, ...] | None:
        """An id, several, or null."""
        value = self.value(name)
        if not isinstance(value, list):
            return self.token_id(name)
        if not all(type(item) is int for item in value):
            raise self.error(name, "must be token ids")
        return tuple(value)

    def inner(self, name: str) -> Fields | None:
        """The object in a field; None where it is missing, null or empty."""
        value = self.value(name, {})
        if not isinstance(value, Mapping):
            raise self.error(name, "must be an object")
        return Fields(value, f"{self.where}: {name}") if value else None

    def only(self, names: Set[str]) -> None:
        """Refuses every field of another name."""
        for name in sorted(self.raw.keys() - names):
            raise self.error(name, "is not known")

    def build(self, kind: type[T]) -> T:
        """The object as a dataclass of words and numbers, which has exactly its fields."""
        wanted, values = typing.get_type_hints(kind), {}
        self.only(wanted.keys())
        for name, hint in wanted.items():
            types, words = _NUMBERS.get(hint, ((str,), "text"))
            if type(self.raw.get(name)) not in types:
                raise self.error(name, f"must be {words}")
            values[name] = float(self.raw[name]) if hint is float else self.raw[name]
        try:
            return kind(**values)
        except OptionError as error:
            raise ModelFileError(f"{self.where}: {error}") from error

    def refuse(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuses every field whose value is not one of those that change nothing."""
        self.seen.update(neutral)
        for name, values in neutral.items():
            if self.raw.get(name, values[0]) not in values:
                raise self.error(name, "changes the computation and is not implemented")
