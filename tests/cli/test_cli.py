"""Commands end with a line and a status: for mistakes, for help, and for Ctrl-C."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from jaxrm import cli
from jaxrm.errors import OptionError

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    """A command."""

    learning_rate: float = 1e-3
    """Of it."""
    run_dir: Path = Path("runs/it")

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise OptionError("--learning-rate must be above 0")


def call(monkeypatch, *arguments, main=print):
    monkeypatch.setattr(sys, "argv", ["it", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.run(main, Config, "What it does.")
    return ended.value.code


def test_mistakes_are_one_line(monkeypatch):
    def refuse(cfg):
        raise OptionError("--run-dir is taken")

    assert call(monkeypatch, main=refuse) == "error: --run-dir is taken"
    assert call(monkeypatch, "--learning-rate", "0") == "error: --learning-rate must be above 0"


def test_an_option_s_name_from_elsewhere_is_hinted_after_the_error(monkeypatch, capsys):
    assert call(monkeypatch, "--lr", "1") == 2
    said = capsys.readouterr().err
    assert said.endswith("--lr is --learning-rate here\n")
    assert "Unrecognized options: --lr" in said


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_is_printed_wherever_it_is_asked_for(monkeypatch, capsys, asked):
    assert call(monkeypatch, "--lr", "1", asked) == 0
    said = capsys.readouterr().out
    assert "What it does." in said
    assert "  --learning-rate FLOAT     Of it. (default: 0.001)\n" in said


def interrupt(body, tmp_path, config="run_dir: str = 'runs/it'"):
    """What a command, whose `main` is this body, prints when Ctrl-C comes as it says "ready"."""
    program = tmp_path / "program.py"
    program.write_text(
        "import dataclasses, signal, time\n"
        "from jaxrm import cli\n"
        "@dataclasses.dataclass(frozen=True)\n"
        f"class Config:\n    {config}\n"
        f"def main(cfg):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        "if __name__ == '__main__':\n"
        # A shell ignores Ctrl-C for what it runs in the background, as it may run these tests.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    cli.run(main, Config, None)\n"
    )
    process = subprocess.Popen(
        [sys.executable, program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, said = process.communicate(timeout=60)
        return process.returncode, out, said, time.monotonic() - started
    finally:
        process.kill()


def test_ctrl_c_is_one_line_and_what_is_open_is_closed(tmp_path):
    body = """
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("closed")
    """
    code, out, said, _ = interrupt(body, tmp_path)
    assert (code, out) == (130, "closed\n")
    assert said == "\ninterrupted: the same command goes on from what is saved in runs/it\n"
    assert interrupt(body, tmp_path, config="pass")[2] == "\ninterrupted\n"


COMPILES = """
    import jax, jax.numpy as jnp
    def slow(x):
        for power in range(600):
            x = jnp.sort(jnp.sin(x * power))
        return x
    lowered = jax.jit(slow).lower(jnp.ones((8, 16)))
    print("ready", flush=True)
    lowered.compile()
"""

COMPUTES = """
    import jax, jax.numpy as jnp
    def slow(x):
        return jax.lax.fori_loop(0, 1_000_000_000, lambda i, x: jnp.sin(x + i), x)
    compiled = jax.jit(slow).lower(jnp.ones((8, 16))).compile()
    print("ready", flush=True)
    compiled(jnp.ones((8, 16))).block_until_ready()
"""


@pytest.mark.parametrize("body", [COMPILES, COMPUTES])
def test_ctrl_c_does_not_wait_for_xla(tmp_path, body):
    code, _, said, seconds = interrupt(body, tmp_path)
    assert code == 130
    assert said == "\ninterrupted: the same command goes on from what is saved in runs/it\n"
    assert seconds < 8


def test_ctrl_c_ends_the_processes_of_a_sweep(tmp_path):
    body = f"""
        from pathlib import Path
        from jaxrm.train.sweep import sweep
        from tests.train.test_sweep import Job, wait_for_the_end
        folder = Path({str(tmp_path)!r})
        import threading
        def ready():
            while not ((folder / "process").exists() and (folder / "process").read_text()):
                time.sleep(0.05)
            print("ready", flush=True)
        threading.Thread(target=ready, daemon=True).start()
        sweep([Job(n, folder) for n in (1, 2)], wait_for_the_end, folder / "out", workers=2)
    """
    code, _, said, seconds = interrupt(body, tmp_path)
    assert code == 130
    assert "Traceback" not in said
    assert seconds < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "process").read_text()), 0)
