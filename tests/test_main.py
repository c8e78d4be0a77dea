"""The console command: the same commands under one name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jaxrm import __main__ as console
from jaxrm import cli, score
from jaxrm.methods.library import METHODS
from jaxrm.study import command

ROOT = Path(__file__).parents[1]


@pytest.fixture
def called(monkeypatch):
    """What the commands hand over, and the program's name at that moment."""
    calls = []
    for module in (cli, command):
        monkeypatch.setattr(module, "run", lambda *given: calls.append((sys.argv[0], *given)))
    return calls


@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_command_runs_a_main_of_its_own(name, called, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxrm", name, "--option"])
    console.main()
    [(program, main, *_, description)] = called
    assert program == f"jaxrm {name}"
    assert sys.argv[1:] == ["--option"]
    assert description
    if name == "train":
        assert main is METHODS
    else:
        assert main.__module__.startswith("jaxrm.")


def test_score_is_the_module_s(called, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxrm", "score"])
    console.main()
    assert called == [("jaxrm score", score.main, score.Config, score.__doc__)]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_alone_it_lists_the_commands(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxrm", *arguments])
    console.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: jaxrm COMMAND ..."
    assert [line.split()[0] for line in lines[2:10]] == [*console.COMMANDS]
    assert all(len(line.split()) > 3 for line in lines[2:10])


@pytest.mark.parametrize(
    ("name", "hint"), [("scor", "did you mean score?"), ("xyz", "there are train, score, ")]
)
def test_an_unknown_command_is_told_the_nearest(name, hint, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxrm", name])
    with pytest.raises(SystemExit) as stopped:
        console.main()
    assert stopped.value.code == 2
    assert f"no command '{name}': {hint}" in capsys.readouterr().err


def test_the_list_imports_next_to_nothing():
    code = (
        "import sys; sys.argv = ['jaxrm']; from jaxrm.__main__ import main; main(); "
        "print({'jax', 'numpy', 'tyro', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_usage_reads_as_it_was_called():
    done = subprocess.run(
        [sys.executable, "-m", "jaxrm", "compare", "--help"], capture_output=True, text=True
    )
    assert done.stdout.startswith("usage: jaxrm compare [OPTIONS] A B\n")
    assert done.returncode == 0


def test_it_is_installed_as_a_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"jaxrm": "jaxrm.__main__:main"}


def test_ctrl_c_within_its_imports_is_no_traceback(monkeypatch, capsys):
    def importing():
        raise KeyboardInterrupt

    monkeypatch.setitem(console.COMMANDS, "score", importing)
    monkeypatch.setattr(sys, "argv", ["jaxrm", "score"])
    with pytest.raises(SystemExit) as left:
        console.main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted before it began\n"
