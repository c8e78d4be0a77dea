"""No command writes over what it reads: the output is looked at before anything is computed."""

from __future__ import annotations

import importlib
import json

import pytest

from experiments import grm_gemma, small_base, study_grm, toy_world
from jaxrm import score
from jaxrm.data import tfds_builder
from jaxrm.data.audit import __main__ as audit
from jaxrm.errors import OptionError
from jaxrm.evaluate import __main__ as evaluate
from jaxrm.evaluate import diagnose
from jaxrm.study import comparing
from tests.messages_oracle import FOLDER

ROW = {"prompt": [{"role": "user", "content": "2+2?"}], "chosen": "4", "rejected": "5"}


@pytest.fixture
def rows(tmp_path):
    """A directory with one file of comparisons."""
    path = tmp_path / "data" / "pairs.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(ROW) + "\n")
    return path


def scored(out, text):
    score.main(score.Config(text, out, FOLDER))


def scored_by(out, model):
    score.main(score.Config("pairs.jsonl", out, model))


def audited(out, text):
    audit.main(audit.Config("pairs.jsonl", against=(text,), out=out))


def prepared(out, text):
    tfds_builder.main(tfds_builder.Config(text, out))


def evaluated(out, text):
    evaluate.main(evaluate.Config(out=out, sets=(text,), longer=True))


def evaluated_by(out, **scorer):
    evaluate.main(evaluate.Config(out=out, sets=("pairs.jsonl",), **scorer))


def diagnosed(out, text):
    diagnose.main(diagnose.Config(FOLDER, (text,), out))


def trained(out, text):
    sources = {"data": ("pairs.jsonl",), "eval": (text,)}
    grm_gemma.main(grm_gemma.Config("gemma-2b-it-lora", run_dir=out, base=FOLDER, **sources))


def pretrained(out, text):
    small_base.main(small_base.Config(("text.jsonl",), (text,), out))


def compared(out, text):
    cfg = comparing.Config(data=(text,), eval=("pairs.jsonl",), run_dir=out, base=FOLDER)
    comparing.main(cfg)


OF_SOURCES = (scored, audited, prepared, evaluated, diagnosed, trained, pretrained, compared)


@pytest.mark.parametrize("command", OF_SOURCES)
def test_an_output_is_not_its_input_nor_in_a_directory_of_it(command, rows, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(rows.parent)
    before = rows.read_bytes()
    for out, text in (
        (rows, f"{rows}?split=train"),
        (link / "pairs.jsonl", str(rows)),
        (rows.parent / "new" / "out", str(link)),
    ):
        with pytest.raises(OptionError, match="which is read: write to another place"):
            command(out, text)
    assert rows.read_bytes() == before
    assert list(rows.parent.iterdir()) == [rows]


def test_nor_is_it_a_model_or_scores(rows):
    """Results may lie beside a model's weights; scores, which a model may be told by, may not."""
    with pytest.raises(OptionError, match="which is read"):
        scored_by(rows.parent / "out", rows.parent)
    for scorer in ({"recorded": rows}, {"model": rows.parent}):
        with pytest.raises(OptionError, match="which is read"):
            evaluated_by(*scorer.values(), **scorer)


OF_A_BASE = ("process_reward", "warm", "haf", "rrm", "self_training", "armo", "judge")


@pytest.mark.parametrize("name", OF_A_BASE)
def test_a_run_does_not_lie_in_its_base(name, rows):
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(OptionError, match="which is read"):
        module.main(module.Config(run_dir=rows.parent / "run", base=rows.parent))
    assert list(rows.parent.iterdir()) == [rows]


def test_nor_do_pages(rows):
    with pytest.raises(OptionError, match="which is read"):
        study_grm.main(study_grm.Config(page=rows, report=rows))
    with pytest.raises(OptionError, match="which is read"):
        toy_world.main(toy_world.Config(base=rows.parent, out=rows.parent / "page.md"))
