"""A source prepared for TFDS reads back as the same comparisons, in order, without TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data import formats, sources, tfds_builder
from jaxrm.data.comparison import Comparison, Message, Step, last_text
from jaxrm.data.sources import Source
from jaxrm.errors import DataError

PAIR = {"prompt": "Name a planet.", "chosen": " Mars", "rejected": " Moon"}


class NoTensorFlow:
    """Refuses to import it. (A None in sys.modules would have TFDS believe that it is there.)"""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(name)


@pytest.fixture(autouse=True)
def _without_tensorflow(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [NoTensorFlow(), *sys.meta_path])


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def contents(comparisons):
    return [dataclasses.replace(comparison, where="") for comparison in comparisons]


def test_a_source_reads_back_by_directory_and_by_name(tmp_path, monkeypatch):
    path = write(tmp_path / "pairs.jsonl", PAIR, PAIR | {"id": "b", "margin": 0.1})
    folder = tfds_builder.prepare(Source(str(path)), tmp_path / "data")
    assert folder == tmp_path / "data" / "jaxrm_preferences" / "1.0.0"
    wanted = contents(sources.read(path))
    assert contents(sources.read(folder)) == contents(sources.read(tmp_path / "data")) == wanted
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "data"))
    assert contents(sources.read("tfds:jaxrm_preferences")) == wanted
    assert wanted[0].id == "pairs/1"  # the source's name for it, not that of the copy


def test_the_split_is_the_one_that_the_source_names(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts" / "test.jsonl", PAIR)
    tfds_builder.prepare(f"{tmp_path / 'parts'}?split=test", tmp_path / "data")
    assert len(sources.read(f"{tmp_path / 'data'}?split=test")) == 1
    with pytest.raises(DataError, match="no split 'train': it has test"):
        sources.read(tmp_path / "data")


def test_order_is_kept_across_shards(tmp_path):
    rows = [PAIR | {"id": str(n)} for n in range(50)]
    source = Source(str(write(tmp_path / "pairs.jsonl", *rows)))
    builder = tfds_builder.Preferences(source, data_dir=tmp_path, file_format="array_record")
    shards = tfds.download.DownloadConfig(num_shards=3)
    builder.download_and_prepare(download_config=shards, download_dir=tmp_path / "downloads")
    assert len(list(builder.data_path.glob("*array_record*"))) == 3
    assert [found.id for found in sources.read(builder.data_path)] == [row["id"] for row in rows]


def test_what_is_prepared_is_not_taken_for_something_else(tmp_path):
    path = write(tmp_path / "pairs.jsonl", PAIR)
    tfds_builder.prepare(path, tmp_path / "data")
    with pytest.raises(DataError, match=r"jaxrm_preferences/1\.0\.0: is prepared already"):
        tfds_builder.prepare(path, tmp_path / "data")


def test_a_source_that_breaks_off_leaves_nothing(tmp_path):
    path = write(tmp_path / "pairs.jsonl", PAIR, {"prompt": "no answers"})
    with pytest.raises(DataError, match=r"pairs\.jsonl, row 2: field 'chosen': missing"):
        tfds_builder.prepare(path, tmp_path / "data")
    write(path, PAIR)
    tfds_builder.prepare(path, tmp_path / "data")  # there is room for it
    assert len(sources.read(tmp_path / "data")) == 1


def test_the_command_prepares_a_directory(tmp_path, capsys):
    config = tfds_builder.Config(str(write(tmp_path / "pairs.jsonl", PAIR)), tmp_path / "data")
    tfds_builder.main(config)
    assert capsys.readouterr().out.splitlines()[-1].endswith("jaxrm_preferences/1.0.0")
    assert len(sources.read(tmp_path / "data")) == 1


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


@st.composite
def comparisons(draw):
    count = draw(st.integers(1, 3))

    def per_response(values):
        return draw(st.none() | st.tuples(*[values] * count))

    if draw(st.booleans()):
        prompt, responses = draw(texts), draw(st.tuples(*[texts] * count))
    else:
        prompt = (Message("system", draw(texts)), Message("user", draw(texts)))
        turn = st.builds(lambda text: (Message("assistant", text),), texts)
        again = st.builds(lambda first, more: (*first, prompt[1], *more), turn, turn)
        responses = draw(st.tuples(*[turn | again] * count))
    label = numbers | st.just(math.nan)
    steps = tuple(
        tuple(Step(end, draw(label)) for end in range(1, len(last_text(response)) + 1, 2))
        for response in responses
    )
    return Comparison(
        prompt,
        responses,
        ranks=per_response(st.integers(0, 3)),
        scores=per_response(numbers),
        margin=draw(numbers),
        attributes=per_response(st.tuples(numbers, numbers | st.just(math.nan))),
        steps=draw(st.sampled_from([None, steps])),
        columns={
            "magnitude": draw(numbers),
            "shade": draw(st.tuples(*[numbers] * count)),
            "states": draw(st.tuples(*[st.tuples(numbers, numbers)] * count)),
        },
        subset=draw(texts),
        id=draw(texts.filter(bool)),
    )


@given(comparisons())
def test_a_comparison_as_a_row_of_json_is_the_same_comparison(comparison):
    row = json.loads(json.dumps(formats.to_row(comparison), ensure_ascii=False))
    names = tuple(comparison.columns)
    assert contents(formats.comparisons([("here", row)], stem="", carried=names)) == [comparison]
