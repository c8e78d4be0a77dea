"""--help holds every option that the command takes, under the names that it takes them by."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path
from typing import Literal

import pytest
import tyro

from jaxrm.cli import help as helping
from jaxrm.cli.help import Option, help_text, options_of
from jaxrm.study import command, options

COMMANDS = [
    "jaxrm.study.command",
    "jaxrm.score",
    "jaxrm.convert",
    "jaxrm.evaluate.__main__",
    "jaxrm.evaluate.diagnose",
    "jaxrm.data.audit.__main__",
]


@dataclasses.dataclass(frozen=True)
class Head:
    """A head.

    Attributes:
      kind: what it is,
        in words.
      hidden, layers: of the MLP.
    """

    kind: Literal["linear", "mlp"] = "linear"
    hidden: int = 8
    layers: int = 1


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Devices along
    each axis.

    More of it.
    """

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class Base:
    """What commands share."""

    out: tyro.conf.Positional[Path]
    """Where to."""
    learning_rate: float = 1e-3
    """Of 100 %
    of the steps."""
    given: int | None = None


@dataclasses.dataclass(frozen=True)
class Config(Base):
    """A command."""

    learning_rate: float = 2e-3
    data: tuple[str, ...] = ("a", "b")
    check: bool = True
    head: Head = Head()
    mesh: Mesh = Mesh()


EXPECTED = [
    Option("out", "OUT", "Where to."),
    Option("learning_rate", "--learning-rate FLOAT", "Of 100 % of the steps. (default: 0.5)"),
    Option("given", "--given INT", ""),
    Option("data", "--data STR ...", "(default: a b)"),
    Option("check", "--check, --no-check", "(default: yes)"),
    Option("head.kind", "--head.kind {linear,mlp}", "what it is, in words. (default: linear)"),
    Option("head.hidden", "--head.hidden INT", "of the MLP. (default: 8)"),
    Option("head.layers", "--head.layers INT", "of the MLP. (default: 1)"),
    Option("mesh.data", "--mesh.data INT", "Devices along each axis. (default: -1)"),
    Option("mesh.fsdp", "--mesh.fsdp INT", "(default: 1)"),
]


def test_an_option_says_what_it_takes_and_what_its_class_says_of_it():
    assert options_of(Config, Config(Path("x"), learning_rate=0.5))[1:] == EXPECTED[1:]
    assert options_of(Config)[0] == EXPECTED[0]


def test_groups_come_in_their_order_and_what_is_in_none_before_them(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    groups = {"most": ("head", "absent", "learning_rate"), "none": ("absent",)}
    lines = help_text(EXPECTED[:4] + EXPECTED[5:7], "What it does.", groups).splitlines()
    assert lines[0].endswith("[OPTIONS] OUT")
    assert lines[1:] == [
        "",
        "What it does.",
        "",
        "options:",
        "  OUT                       Where to.",
        "  --given INT",
        "  --data STR ...            (default: a b)",
        "",
        "most:",
        "  --head.kind {linear,mlp}  what it is, in words. (default:",
        "                            linear)",
        "  --head.hidden INT         of the MLP. (default: 8)",
        "  --learning-rate FLOAT     Of 100 % of the steps. (default:",
        "                            0.5)",
    ]


def named(text):
    """The options in what an option is written as."""
    return set(re.findall(r"--[a-z0-9][\w.-]*", text))


@pytest.mark.parametrize("module", COMMANDS)
def test_these_are_the_options_that_the_command_takes(module, monkeypatch, capsys):
    """Those of tyro's own help, which is asked for here and never printed otherwise."""
    monkeypatch.setenv("COLUMNS", "200")
    config = importlib.import_module(module).Config
    with pytest.raises(SystemExit):
        tyro.cli(config, args=["--help"])
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    rows = [line[1:] for line in said.splitlines() if re.match(r"\W (-h, )?--", line)]
    theirs = {option for row in rows for option in named(re.split(r" {3,}", row.strip())[0])}
    ours = {option for each in options_of(config) for option in named(each.name)}
    assert theirs - {"--help"} == ours


def test_a_run_has_a_group_for_every_option():
    grouped = [name for names in options.GROUPS.values() for name in names]
    assert len(set(grouped)) == len(grouped)
    assert {field.name for field in dataclasses.fields(command.Config)} <= set(grouped)


def test_another_command_is_called_as_this_one_was(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jaxrm train"])
    assert helping.another("score", "jaxrm.score") == "jaxrm score"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert helping.another("score", "jaxrm.score") == ".venv/bin/python -m jaxrm.score"
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert helping.another("score", "jaxrm.score") == "/usr/bin/python3 -m jaxrm.score"
