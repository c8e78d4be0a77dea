"""What a run trains and measures on, of one file or of several."""

from __future__ import annotations

import json

import pytest

from jaxrm import toy
from jaxrm.data import formats
from jaxrm.errors import DataError, OptionError
from jaxrm.study.runconfig import RunConfig
from jaxrm.study.rundata import named_data
from tests.rows_of_pairs import written

PAIRS = toy.World(0).comparisons("train", 60)


@pytest.fixture
def rows(tmp_path):
    return written(tmp_path / "pairs.jsonl", PAIRS)


def config(rows, **options):
    return RunConfig(preset="small-lora", base=rows.parent, data=(str(rows),), **options)


def prompts(comparisons):
    return {str(comparison.prompt) for comparison in comparisons}


def test_without_eval_a_tenth_of_the_prompts_is_held_out(rows, capsys):
    data = named_data(config(rows))
    [(stream, weight)] = data.training
    training, val = list(stream), data.held_out["val"]
    assert weight == 1.0
    assert len(training) + len(val) == len(PAIRS)
    assert prompts(training).isdisjoint(prompts(val))
    assert 0 < len(prompts(val)) < len(prompts(PAIRS)) / 4
    assert f"the split val has the {len(val):,} that order anything" in capsys.readouterr().out
    assert list(stream) == training, "it is streamed again for each method that prepares data"


def test_another_seed_holds_out_others_and_the_same_seed_the_same(rows):
    held_out = [named_data(config(rows, seed=seed)).held_out["val"] for seed in (0, 1, 0)]
    assert held_out[0] == held_out[2]
    assert held_out[0] != held_out[1]


def test_with_eval_nothing_is_taken_from_training(rows, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text().splitlines(keepends=True)[0])
    data = named_data(config(rows, eval=(str(other),)))
    assert len(list(data.training[0][0])) == len(PAIRS)
    assert list(data.held_out) == ["other"]


def test_of_too_few_prompts_none_is_held_out_which_is_said(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = json.dumps(formats.to_row(PAIRS[0])) + "\n"
    path.write_text(row)
    seeds = [seed for seed in range(20) if not _holds_out(path, seed)]
    with pytest.raises(DataError, match="name what to measure on with --eval"):
        named_data(config(path, seed=seeds[0]))


def _holds_out(path, seed):
    try:
        return named_data(config(path, seed=seed)).held_out
    except DataError:
        return {}


def test_what_cannot_be_measured_on_is_refused_before_anything_is_loaded(rows, tmp_path):
    unordered = tmp_path / "unordered.jsonl"
    unordered.write_text(json.dumps({"prompt": "Why?", "responses": ["a", "b"]}) + "\n")
    with pytest.raises(DataError, match=r"unordered.jsonl, row 1"):
        named_data(config(rows, eval=(str(unordered),)))
    with pytest.raises(OptionError, match=r"add \?name=ANOTHER"):
        named_data(config(rows, eval=(str(rows), str(rows))))
