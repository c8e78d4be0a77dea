"""The documentation's example of a new method: on a mesh, killed and resumed, exported."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.new_method import FOCAL_NEAR_BASE
from jaxrm import parallel, toy
from jaxrm.huggingface import tensorfile
from jaxrm.models.lora import LoraConfig
from jaxrm.parallel import MeshShape
from jaxrm.study import command
from jaxrm.study.command import Config
from tests.methods.small_base import small_base
from tests.rows_of_pairs import written

ROOT = Path(__file__).parents[1]
FILE = ROOT / "experiments" / "new_method.py"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    return written(path, toy.World(0).comparisons("train", 24))


def trained(run_dir, base, rows, shape, **options):
    cfg = Config(
        preset="gemma-2b-it-lora",
        base=base,
        data=(str(rows),),
        eval=(str(rows),),
        run_dir=run_dir,
        mesh=shape,
        rows=4,
        row_length=160,
        max_length=160,
        steps=3,
        learning_rate=1e-2,
        log_every=1,
        **options,
    )
    command.main(cfg, {"focal_near_base": FOCAL_NEAR_BASE})
    lines = (run_dir / "focal_near_base" / "metrics.jsonl").read_text().splitlines()
    export = tensorfile.read(run_dir / "focal_near_base" / "export" / "model.safetensors")
    return [json.loads(line) for line in lines], {name: np.array(x) for name, x in export.items()}


def test_it_is_one_file_of_a_hundred_lines_that_the_readme_shows():
    text = FILE.read_text("utf-8")
    assert len(text.splitlines()) <= 100
    code = text[text.index("from __future__") :]
    assert code in (ROOT / "README.md").read_text("utf-8")
    assert "experiments" not in {
        node.module.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
    }


def test_a_mesh_of_eight_devices_trains_it_as_one_device_does(base, rows, tmp_path, monkeypatch):
    options = {"train": "lora", "lora": LoraConfig(rank=2, dropout=0.0)}
    split_up = trained(tmp_path / "cube", base, rows, MeshShape(2, 2, 2), **options)
    one, make_mesh = jax.devices()[:1], parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda shape, devices=one: make_mesh(shape, one))
    whole = trained(tmp_path / "one", base, rows, MeshShape(1, 1, 1), **options)
    for left, right in zip(split_up[0], whole[0], strict=True):
        for name in ("loss", "loss/distance", "loss/reward", "grad_norm"):
            np.testing.assert_allclose(left[name], right[name], rtol=2e-3, atol=1e-5)
    # The states begin where the base has them, and move.
    assert whole[0][0]["loss/distance"] == pytest.approx(0, abs=1e-9)
    assert whole[0][-1]["loss/distance"] > 1e-9
    for name, value in whole[1].items():
        np.testing.assert_allclose(split_up[1][name], value, rtol=0, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_killed_it_ends_as_if_it_had_not_been(base, rows, tmp_path):
    line = [
        sys.executable, "-m", "experiments.new_method", "--base", base, "--data", rows,
        "--eval", rows, "--row-length", "160", "--max-length", "160", "--rows", "8",
        "--steps", "40", "--checkpoint-every", "4", "--log-every", "1", "--eval-every", "20",
    ]  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def start(run_dir):
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT}
        return subprocess.Popen([*map(str, line), "--run-dir", str(run_dir)], **options)

    assert start(whole).wait() == 0
    process, checkpoints = start(broken), broken / "focal_near_base" / "checkpoints"
    while process.poll() is None:
        if checkpoints.is_dir() and len(list(checkpoints.iterdir())) > 1:
            break
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it was killed"
    process.kill()
    process.wait()
    assert start(broken).wait() == 0
    files = [run / "focal_near_base" / "export" / "model.safetensors" for run in (whole, broken)]
    assert files[0].read_bytes() == files[1].read_bytes()
    results = [json.loads((run / "results.json").read_text()) for run in (whole, broken)]
    assert results[0] == results[1]
