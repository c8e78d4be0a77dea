"""Notebooks run from top to bottom, as somebody would run them, on a moment's work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


def cells(path, kind):
    book = json.loads(path.read_text("utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    return ["".join(c["source"]) for c in book["cells"] if c["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_explains_itself(path):
    book = json.loads(path.read_text("utf-8"))
    of_code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in of_code)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    assert cells(path, "markdown")[0].startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    program = "\n\n".join(cells(path, "code"))
    (tmp_path / "notebook.py").write_text(program, "utf-8")
    small = {"JAXRM_TINY": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "notebook.py"],
        cwd=tmp_path,
        env=os.environ | small,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "ood_prompt   grm_sft" in done.stdout
    assert "An apple is a fruit." in done.stdout
    exported = tmp_path / "runs" / "grm" / "grm_sft" / "grm_sft" / "export"
    assert (exported / "model.safetensors").exists()
    assert list(tmp_path.joinpath("runs").iterdir())


def test_the_first_cell_installs_beside_colab_s_own_jax(tmp_path):
    """Where there is no jaxrm, pip is told to keep jax and what is built against it."""
    first = cells(NOTEBOOKS[0], "code")[0]
    said = tmp_path / "said.json"
    without = (
        "import importlib.util, json, pathlib, subprocess\n"
        "importlib.util.find_spec = lambda name: None\n"
        f"subprocess.run = lambda command, check: pathlib.Path({str(said)!r})"
        ".write_text(json.dumps(command))\n"
    )
    command = [sys.executable, "-c", without + first.replace('SOURCE = ""', 'SOURCE = "a/tree"')]
    subprocess.run(command, cwd=tmp_path, check=True)
    *_, constraint, kept, source = json.loads(said.read_text())
    assert (constraint, source) == ("-c", "a/tree")
    pinned = (tmp_path / kept).read_text().splitlines()
    import flax
    import jax

    assert {f"jax=={jax.__version__}", f"flax=={flax.__version__}"} <= set(pinned)


def test_the_first_cell_says_what_it_needs(tmp_path):
    first = cells(NOTEBOOKS[0], "code")[0]
    without = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    command = [sys.executable, "-c", without + first]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Say in SOURCE where jaxrm is" in done.stderr
