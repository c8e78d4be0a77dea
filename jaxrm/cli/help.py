"""What --help prints: a command's options in groups, what most people need first.

The options are those that tyro makes of the fields of a dataclass, by the same names; what is said
of them is the string below a field, or its line under "Attributes:" in the class's docstring.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Groups = Mapping[str, Sequence[str]]
"""Of each group of options, its title and the names of its fields, in the order to be read. Fields
that a command has not are passed over, so that commands with common options can share groups."""

HELP = ("-h", "--help")

_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1:]
_COLUMN, _WIDEST = 28, 100


@dataclasses.dataclass(frozen=True)
class Option:
    """One option, or one value of a command that has a place in place of a name.

    Attributes:
      path: of the field: "learning_rate", "lora.rank".
      name: as it is written: "--learning-rate FLOAT".
      about: what is said of it, the default included.
    """

    path: str
    name: str
    about: str


def options_of(config: type, default: Any = None) -> list[Option]:
    """A command's options, those of nested dataclasses included.

    Args:
      config: a dataclass.
      default: one of these, whose values are the defaults; those of the fields without.
    """
    return list(_options(config, default))


def help_text(options: Sequence[Option], description: str | None, groups: Groups) -> str:
    """The whole help. Options that are in no group come first, under a title of their own."""
    tops = [option.path.split(".")[0] for option in options]
    grouped = {name for names in groups.values() for name in names}
    rest = list(dict.fromkeys(top for top in tops if top not in grouped))
    sections = []
    for title, names in {"options": rest, **groups}.items():
        chosen = [
            option
            for name in names
            for option, top in zip(options, tops, strict=True)
            if top == name
        ]
        if chosen:
            sections.append("\n".join([f"{title}:", *map(_entry, chosen)]))
    places = " ".join(option.name for option in options if not option.name.startswith("-"))
    usage = f"usage: {command_name()} [OPTIONS] {places}".rstrip()
    return "\n\n".join([usage, inspect.cleandoc(description or "").strip(), *sections])


def command_name() -> str:
    """How the command was called: "python -m jaxrm.score", or "jaxrm score"."""
    module = sys.modules["__main__"]
    spec = getattr(module, "__spec__", None)
    # A command of several puts its own name in the place of the file's.
    if spec is None or sys.argv[0] != getattr(module, "__file__", None):
        return Path(sys.argv[0]).name
    return f"python -m {spec.name.removesuffix('.__main__')}"


def another(name: str, module: str) -> str:
    """How to call another command as this one was called: "jaxrm score", or by this Python."""
    if command_name().startswith("jaxrm "):
        return f"jaxrm {name}"
    there = os.path.relpath(sys.executable)
    return f"{sys.executable if there.startswith(os.pardir) else there} -m {module}"


def _options(config: type, default: Any, prefix: str = "", of_all: str = "") -> Iterator[Option]:
    """`of_all` is said of the first, where nothing is said of it by itself."""
    types_, said = typing.get_type_hints(config, include_extras=True), _said(config)
    for field in dataclasses.fields(config):
        value, kind, path = _default(field, default), types_[field.name], prefix + field.name
        if dataclasses.is_dataclass(kind):
            whole = " ".join(inspect.getdoc(kind).split("\n\n")[0].split())
            yield from _options(kind, value, f"{path}.", said.get(field.name, whole))
            continue
        name, takes = path.replace("_", "-"), _takes(kind)
        if typing.get_origin(kind) is Annotated and kind.__metadata__ == _POSITIONAL:
            # What may be left out is in brackets.
            written = name.upper() if value is dataclasses.MISSING else f"[{name.upper()}]"
        elif kind is bool:
            written = f"--{name}, --{prefix.replace('_', '-')}no-{field.name.replace('_', '-')}"
        else:
            written = f"--{name} {takes}"
        about = said.get(field.name, of_all), _shown(value, written)
        yield Option(path, written, " ".join(filter(None, about)))
        of_all = ""


def _default(field: dataclasses.Field, whole: Any) -> Any:
    """A field's default; dataclasses.MISSING where it must be given."""
    if dataclasses.is_dataclass(whole):
        return getattr(whole, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _shown(value: Any, written: str) -> str:
    """A default in words; none for None and for nothing, which say nothing."""
    if value is dataclasses.MISSING:
        return "(required)" if written.startswith("-") else ""
    if value in (None, (), ""):
        return ""
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return f"(default: {' '.join(map(str, value)) if isinstance(value, tuple) else value})"


def _takes(kind: Any) -> str:
    """What stands behind an option of a type: "{all,lora,head}", "PATH", "STR ..."."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _takes(parts[0])
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin is tuple:
        return " ".join("..." if part is ... else _takes(part) for part in parts)
    if origin in (typing.Union, types.UnionType):
        return "|".join(_takes(part) for part in parts if part is not type(None))
    return getattr(kind, "__name__", str(kind)).upper()


def _said(config: type) -> dict[str, str]:
    """What is said of each field, by the class or by one that it extends."""
    said: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if dataclasses.is_dataclass(base):
            said |= _attributes(inspect.getdoc(base) or "") | _below(base)
    return said


def _below(config: type) -> dict[str, str]:
    """The string below each field of a class."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    return {
        field.target.id: " ".join(inspect.cleandoc(string.value.value).split())
        for field, string in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(string, ast.Expr)
        and isinstance(string.value, ast.Constant)
    }


def _attributes(docstring: str) -> dict[str, str]:
    """What a docstring says under "Attributes:"; one line may be of several fields."""
    section = re.search(r"^Attributes:\n((?:  .*\n?|\n)*)", docstring, re.MULTILINE)
    said = {}
    for entry in re.split(r"^  (?=\S)", section[1], flags=re.MULTILINE) if section else ():
        names, _, text = entry.partition(":")
        said |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return said


def _entry(option: Option) -> str:
    """An option's lines: its name, and what is said of it beside or below."""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    margin = " " * _COLUMN
    lines = textwrap.wrap(option.about, width, initial_indent=margin, subsequent_indent=margin)
    name = f"  {option.name}"
    if not lines:
        return name
    if len(name) + 2 > _COLUMN:
        return "\n".join([name, *lines])
    return "\n".join([name + lines[0][len(name) :], *lines[1:]])
