"""A whole run from a name on the Hub back to the Hub: what it reads, says, leaves and uploads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import pytest

from jaxrm import parallel, toy
from jaxrm.errors import OptionError
from jaxrm.huggingface import tensorfile
from jaxrm.methods.library import METHODS
from jaxrm.parallel import MeshShape
from jaxrm.study import command
from jaxrm.study.command import Config
from jaxrm.train import rundir
from tests.huggingface import hub_standin
from tests.methods.small_base import small_base
from tests.rows_of_pairs import written

BASE = "owner/base"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def rows(place):
    return written(place / "pairs.jsonl", toy.World(0).comparisons("train", 40))


@pytest.fixture(scope="module")
def hub(place):
    with pytest.MonkeyPatch.context() as patch:
        one, make_mesh = jax.devices()[:1], parallel.make_mesh
        patch.setattr(
            parallel, "make_mesh", lambda shape=MeshShape(), devices=one: make_mesh(shape, one)
        )
        patch.chdir(place)
        with hub_standin.serving(patch, place / "home") as served:
            (place / "home").mkdir(exist_ok=True)
            (place / "home" / "token").write_text(hub_standin.TOKEN)
            served.repo(BASE, hub_standin.files_of(small_base(place)))
            yield served


def config(place, rows, **options):
    return Config(
        preset="small-full",
        method="bt",
        base=Path(BASE),
        data=(str(rows),),
        run_dir=place / "run",
        train="all",
        steps=2,
        rows=2,
        row_length=160,
        max_length=160,
        dtype="bfloat16",
        log_every=1,
        **options,
    )


@pytest.fixture(scope="module")
def run(place, rows, hub):
    pytest.importorskip("tensorboardX")
    cfg = config(place, rows, log=("tensorboard",), push="owner/rm")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *parts, **_: said.append(" ".join(map(str, parts))))
        command.main(cfg, METHODS)
    return cfg, "\n".join(said)


def test_it_shows_the_options_then_a_comparison_as_the_model_reads_it(run):
    _, said = run
    options, example = said.index('"preset": "small-full"'), said.index("As the model reads it:")
    assert said.index("no --eval:") < options < example
    assert "◀ reward" in said[example:]
    assert "pairs.jsonl, row 1" in said[example:]


def test_it_ends_with_where_the_model_lies_and_who_reads_it(run):
    cfg, said = run
    end = said[said.index(f"bt: {cfg.run_dir}/bt/export") :]
    assert "read by transformers, vLLM, TRL, RewardBench, OpenRLHF, jaxrm" in end
    assert f"-m jaxrm.score --model {cfg.run_dir}/bt/export IN.jsonl OUT.jsonl" in end
    assert "bt: uploaded to http" in end


def test_an_export_is_kept_in_what_the_run_computed_in(run):
    stored = tensorfile.read(run[0].run_dir / "bt" / "export" / "model.safetensors")
    kinds = {name: str(tensor.dtype) for name, tensor in stored.items()}
    assert kinds.pop("score.weight") == "float32"
    assert set(kinds.values()) == {"bfloat16"}


def test_the_export_is_on_the_hub_with_its_card_and_a_link_to_its_base(run, hub):
    repo = hub.repos["owner/rm"]
    held = repo.commits[repo.refs["main"]]
    export = hub_standin.files_of(run[0].run_dir / "bt" / "export")
    assert {name: held[name] for name in export} == export
    assert repo.private
    assert "base_model: owner/base\n" in held["README.md"].decode()


def test_loggers_are_beside_the_metrics(run):
    folder = run[0].run_dir / "bt"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert list((folder / "tensorboard").iterdir())


def test_a_resumed_run_keeps_the_commit_that_it_began_with(run, place, rows, hub):
    recorded = rundir.recorded(place / "run", rundir.REVISION)
    assert recorded == hub.repos[BASE].refs["main"]
    before = (place / "run" / "results.json").read_text()
    hub.repos[BASE].commit({"config.json": b"{}", "model.safetensors": b""})
    # Neither is what the run is.
    command.main(config(place, rows), METHODS)
    assert (place / "run" / "results.json").read_text() == before
    assert rundir.recorded(place / "run", rundir.REVISION) == recorded


def test_what_cannot_be_pushed_or_chosen_is_said_before_anything_is_read(place, rows, hub):
    cfg = config(place, rows, push="no name")
    with pytest.raises(OptionError, match="--push must be owner/name"):
        command.main(dataclasses.replace(cfg, run_dir=place / "other"), METHODS)
    dpo = dataclasses.replace(
        config(place, rows), method="dpo", select="best", run_dir=place / "other"
    )
    with pytest.raises(OptionError, match="leave --select best out"):
        command.main(dpo, METHODS)
