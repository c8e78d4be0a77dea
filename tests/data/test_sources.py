"""Sources are named in one line, read alike wherever they lie, and thinned as GRM does."""

from __future__ import annotations

import dataclasses
import json
import logging

import datasets
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm import toy
from jaxrm.data import chat, packing, planning, sources, tfds_builder
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.sources import Source
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from tests.shared_data import shared

ASK = {"role": "user", "content": "2 + 2?"}
GOOD = {"prompt": [ASK], "chosen": "4", "rejected": "5"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def refused(text):
    with pytest.raises(DataError) as caught:
        sources.read(text)
    return str(caught.value)


def test_a_file_is_read_as_comparisons_named_by_file_and_row(tmp_path):
    path = write(tmp_path / "pairs.jsonl", GOOD | {"id": "a/1", "margin": 3}, GOOD)
    first, second = sources.read(path)
    prompt = (Message("user", "2 + 2?"),)
    assert first == Comparison.pair(prompt, "4", "5", margin=3, id="a/1", where=f"{path}, row 1")
    assert (second.id, second.where) == ("pairs/2", f"{path}, row 2")


def test_a_bad_field_of_a_later_row_is_named(tmp_path):
    path = write(tmp_path / "pairs.jsonl", GOOD, GOOD | {"chosen": None})
    assert refused(path).startswith(f"{path}, row 2: field 'chosen': ")


def test_rows_are_read_as_they_are_asked_for(tmp_path):
    path = write(tmp_path / "pairs.jsonl", GOOD, {"chosen": "broken"})
    found = sources.stream(path)
    assert next(found).id == "pairs/1"
    with pytest.raises(DataError, match="row 2"):
        next(found)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_source_without_rows_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    assert refused(tmp_path / "a.jsonl").endswith("a.jsonl: holds no rows")


def test_a_source_is_parsed_out_of_one_line():
    text = "llm-blender/Unified-Feedback?config=all&split=val&label=safer&every=20&weight=0.5"
    location = "llm-blender/Unified-Feedback"
    assert Source.parse(text) == Source(location, "all", "val", "safer", 20, 0.5)
    assert Source.parse("tfds:a/b:1.0.0") == Source("tfds:a/b:1.0.0")


def test_a_mark_in_the_name_of_a_file_is_no_option(tmp_path):
    path = write(tmp_path / "what?every=2.jsonl", GOOD, GOOD)
    assert len(sources.read(path)) == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("sprit=val", "'sprit=val' is not one of config=, split=, label=, every=, weight="),
        ("split", "'split' is not one of"),
        ("", "'' is not one of"),
        ("every=2&every=3", "'every=3' is not one of"),
        ("every=half", "every must be a whole number, not 'half'"),
        ("weight=much", "weight must be a number, not 'much'"),
        ("every=0", "every must be at least 1, not 0"),
        ("weight=0", "weight must be above 0 and finite, not 0.0"),
        ("weight=nan", "finite, not nan"),
        ("weight=inf", "finite, not inf"),
        ("split=", "split may not be empty"),
    ],
)
def test_an_option_that_is_wrong_is_refused(options, problem):
    with pytest.raises(DataError) as caught:
        Source.parse(f"a.jsonl?{options}")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("data/id.jsonl.gz", "id"),
        ("data/ultrafeedback/", "ultrafeedback"),
        ("owner/name?split=test", "name-test"),
        ("owner/name?config=all&split=val", "name-all-val"),
        ("tfds:prefs/small:1.0.0", "prefs-small"),
    ],
)
def test_a_source_has_a_short_name(text, name):
    assert Source.parse(text).name == name


NUMBERS = {"of_pair": 0.5, "of_each": [1, 2.0], "lists": [[1, 2, 3], [4, 5, 6]]}


def test_columns_of_numbers_come_along(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD | NUMBERS, GOOD | NUMBERS | {"of_each": [0, 1]})
    (read,) = sources.read(f"{path}?columns=of_pair,lists&every=2")
    assert read.columns == {"of_pair": 0.5, "lists": ((1, 2, 3), (4, 5, 6))}
    assert [c.columns for c in sources.read(f"{path}?columns=of_each")] == [
        {"of_each": (1, 2.0)},
        {"of_each": (0, 1)},
    ]
    assert [c.columns for c in sources.read(path)] == [{}, {}]


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        (None, "x", "missing, and ?columns= asks for it: expected a number of the pair, a list of"),
        ("0.5", "x", "expected a number, found text"),
        (True, "x", "expected a number, found a boolean"),
        ({"a": 1}, "x", "expected a number, found an object"),
        ([1, 2, 3], "x", "has 3 entries for 2 responses"),
        ([], "x", "has 0 entries for 2 responses"),
        ([1, None], "x[1]", "expected a number, found null"),
        ([1, [2]], "x[1]", "expected a number, found a list"),
        ([[1], [2, 3]], "x[1]", "every response needs as many numbers, at least one"),
        ([[1], ["2"]], "x[1][0]", "expected a number, found text"),
        (float("inf"), "x", "must be finite"),
    ],
)
def test_a_column_that_is_asked_for_is_checked_in_every_row(tmp_path, value, field, problem):
    path = write(tmp_path / "a.jsonl", GOOD | {"x": 1}, GOOD | {"x": value})
    assert refused(f"{path}?columns=x").startswith(f"{path}, row 2: field '{field}': {problem}")


@pytest.mark.parametrize("name", ["margin", "scores", "response_score"])
def test_a_column_has_no_name_of_a_field(tmp_path, name):
    path = write(tmp_path / "a.jsonl", GOOD | {name: 1})
    assert f"row 1: field 'columns[{name}]': is the name" in refused(f"{path}?columns={name}")


# As many comparisons as GRM's rule keeps: ties are left out, then list[::n] is taken.


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 7))
def test_every_counts_comparisons_that_are_no_ties(tmp_path_factory, tied, every):
    rows = [
        {"prompt": "a", "responses": ["b", "c"], "ranks": [0, 0] if tie else [1, 0], "id": str(n)}
        for n, tie in enumerate(tied)
    ]
    path = write(tmp_path_factory.mktemp("every") / "a.jsonl", *rows)
    numbers = [str(n) for n, tie in enumerate(tied) if every == 1 or not tie][::every]
    if numbers:
        assert [found.id for found in sources.read(Source(str(path), every=every))] == numbers
    else:
        assert "holds no rows but ties" in refused(f"{path}?every={every}")


def test_what_thinning_leaves_out_is_said(tmp_path, caplog):
    tie = {"prompt": "a", "responses": ["b", "c"], "ranks": [0, 0]}
    unranked, single = tie | {"ranks": None}, {"prompt": "a", "responses": ["b"], "ranks": [0]}
    path = write(tmp_path / "a.jsonl", tie, unranked, single, tie, unranked)
    with caplog.at_level(logging.INFO, "jaxrm"):
        assert [found.id for found in sources.read(f"{path}?every=2")] == ["a/2", "a/5"]
    assert caplog.messages == [f"{path}: kept 2 of 3, after 2 ties"]


# One set of rows, in every kind of place.


def says(content):
    return {"role": "assistant", "content": content}


PLAIN = {"prompt": [ASK], "responses": [[says("4")], [says("")]], "ranks": [0, 1]}
ROWS = [
    PLAIN,
    PLAIN | {"id": "own/1", "subset": "sums", "margin": 0.1, "scores": [0.1, -7]},
    PLAIN | {"subset": None, "scores": None, "attributes": [[0.1, None], [1, 1e-30]]},
    {
        "prompt": [{"role": "system", "content": ""}, ASK, says("4"), ASK],
        "responses": [
            [says("e\u0301 \u2028\x00 \U0001f9ee\u200d")],
            [says("\u4e8c"), ASK, says("\r\n\ttwo ")],
            [says("\ufeff")],
        ],
        "ranks": [2, 0, 0],
    },
]


def as_jsonl(folder):
    return write(folder / "rows.jsonl", *ROWS)


def as_directory(folder):
    (folder / "rows").mkdir()
    write(folder / "rows" / "train-0.jsonl", *ROWS[:3])
    write(folder / "rows" / "train-1.jsonl", *ROWS[3:])
    return folder / "rows"


def as_saved(folder):
    columns = {column: [row.get(column) for row in ROWS] for row in ROWS for column in row}
    datasets.Dataset.from_dict(columns).save_to_disk(folder / "rows", num_shards=2)
    return folder / "rows"


def as_tfds(folder):
    (folder / "before").mkdir()
    tfds_builder.prepare(as_jsonl(folder / "before"), folder / "rows")
    return folder / "rows"


def batches(comparisons):
    """An epoch of packed batches."""
    trees = chat.tokenize(comparisons, load_tokenizer(toy.TOKENIZER))
    shape = planning.fit_shape(trees, rows=2, length=128, ask="all")
    sizes = packing.measure(trees, ask="all", preferences=True)
    plan = planning.plan_epoch(sizes, shape, 0, 0)
    return [packing.pack(trees, plan[i : i + 2], shape) for i in range(0, len(plan), 2)]


@pytest.mark.parametrize("place", [as_directory, as_saved, as_tfds])
def test_rows_are_the_same_comparisons_and_batches_wherever_they_lie(tmp_path, place):
    (tmp_path / "file").mkdir()
    (tmp_path / "place").mkdir()
    wanted = sources.read(as_jsonl(tmp_path / "file"))
    found = sources.read(place(tmp_path / "place"))
    assert [dataclasses.replace(each, where="") for each in found] == [
        dataclasses.replace(each, where="") for each in wanted
    ]
    packed = batches(wanted)
    grades = np.concatenate([batch.attributes.ravel() for batch in packed])
    assert np.isin(np.float32([0.1, 1, 1e-30]), grades).all()
    leaves, others = jax.tree.leaves(packed), jax.tree.leaves(batches(found))
    for wanted_leaf, leaf in zip(leaves, others, strict=True):
        assert wanted_leaf.dtype == leaf.dtype
        assert wanted_leaf.tobytes() == leaf.tobytes()


def test_real_files():
    pairs = sources.read(shared("sample", "pairs_64.jsonl"))
    assert len(pairs) == 64
    assert {pair.ranks for pair in pairs} == {(0, 1)}
    many = sources.read(f"{shared('eval', 'bon_tulu2_13b.jsonl.gz')}?ignore=reference,policy")
    assert {len(comparison.responses) for comparison in many} == {11}
    assert {comparison.ranks for comparison in many} == {None}


def test_a_source_may_be_given_another_name():
    assert Source.parse("some/data?split=validation&name=val").name == "val"
    assert Source.parse("some/data?split=validation").name == "data-validation"


def test_a_table_means_what_it_says(tmp_path, caplog):
    (tmp_path / "rows").mkdir()
    text = (
        "instruction,input,chosen,rejected\nWhat is this in R?,NA,None,nan\nAnd this?,,4,5 or 6\n"
    )
    (tmp_path / "rows" / "a.csv").write_text(text)
    first, second = sources.read(tmp_path / "rows")
    assert first.prompt[0].content == "What is this in R?\nNA"
    assert [response[0].content for response in first.responses] == ["None", "nan"]
    assert second.prompt[0].content == "And this?"
    (tmp_path / "rows" / "b.jsonl").write_text(json.dumps(GOOD))
    sources.read(tmp_path / "rows")
    assert "in no split, and not read: " in caplog.text


def test_rows_that_are_too_deep_are_refused(tmp_path):
    deep = "[" * 3000 + "]" * 3000
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "Is it?", "chosen": "a", "rejected": "b", "more": ' + deep + "}")
    assert "a.jsonl, row 1: " in refused(path)
