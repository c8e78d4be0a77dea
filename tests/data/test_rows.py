"""Rows come out of files, directories, the Hub's cache and TFDS as JSON would have them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import fsspec
import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from jaxrm.data import rows
from jaxrm.errors import DataError
from tests.huggingface import hub_standin

ROWS = [{"text": f"row {n}", "turns": [{"role": "user", "n": n}]} for n in range(9)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    datasets.disable_progress_bars()


@pytest.fixture
def offline(monkeypatch):
    """As HF_HUB_OFFLINE=1, which both libraries read when they are imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def lines(found):
    return "".join(json.dumps(row) + "\n" for row in found).encode()


def read(location, *options):
    return [row for _, row in rows.rows(str(location), *options)]


def refused(location, *options):
    with pytest.raises(DataError) as caught:
        list(rows.rows(str(location), *options))
    return str(caught.value)


def shards(folder, write, suffix, names=("a", "b", "c")):
    """ROWS in several files of three."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in enumerate(names):
        write(ROWS[3 * n : 3 * n + 3], folder / f"{name}{suffix}")
    return folder


def write_json(found, path):
    path.write_bytes(lines(found))


def write_parquet(found, path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), path)


def write_csv(found, path):
    path.write_text("text\n" + "".join(row["text"] + "\n" for row in found))


def cut(path):
    """Loses the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_gzip_parquet_and_plain_text_read_alike(tmp_path):
    plain, marked = tmp_path / "rows.jsonl", tmp_path / "marked.jsonl"
    zipped, table = tmp_path / "rows.jsonl.gz", tmp_path / "rows.parquet"
    plain.write_bytes(lines(ROWS))
    zipped.write_bytes(gzip.compress(lines(ROWS)))
    marked.write_bytes(b"\xef\xbb\xbf" + lines(ROWS).replace(b"\n", b"\r\n\r\n"))
    write_parquet(ROWS, table)
    assert read(plain) == read(zipped) == read(table) == read(marked) == ROWS
    assert [where for where, _ in rows.rows(str(marked))][1] == f"{marked}, row 3"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz"])
def test_what_a_file_holds_says_how_it_is_read(tmp_path, name):
    path = tmp_path / name
    for content in (lines(ROWS), json.dumps(ROWS, indent=1).encode()):
        path.write_bytes(content)
        assert read(path) == ROWS
        path.write_bytes(gzip.compress(content))
        assert read(path) == ROWS
    write_parquet(ROWS, path)
    assert read(path) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", None, "does not exist"),
        ("a.txt", b"{}", "not a preference file: use .jsonl, .jsonl.gz, .json, .json.gz, .parquet"),
        ("a.csv", b"a,b", "tables of text are read from directories: put it into a directory of"),
        ("a.jsonl", b'\n{"prompt": ', "row 2: not a line of JSON"),
        ("a.jsonl", b'{"text": "\xff"}', "row 1: not UTF-8"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:-9], "damaged gzip"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "damaged gzip after row 0"),
        ("a.parquet", b"PAR1 but not really PAR1", "damaged Parquet after row 0"),
        ("a.parquet", b'{"a": 1}', "is no Parquet file, which begins with PAR1, and not with b'{"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "is a git-LFS pointer"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, problem):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    message = refused(path)
    assert message.startswith(str(path))
    assert problem in message


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    assert "is not a file" in refused(tmp_path / "a.jsonl")


def test_a_file_has_no_splits(tmp_path):
    write_json(ROWS, tmp_path / "a.jsonl")
    assert "no configurations or splits" in refused(tmp_path / "a.jsonl", "", "test")
    assert "no configurations or splits" in refused(tmp_path / "a.jsonl", "all")


@pytest.mark.parametrize(
    ("suffix", "write", "problem"),
    [
        (".jsonl", write_json, ", row 2: not a line of JSON"),
        (".parquet", write_parquet, ": damaged Parquet after row 0"),
    ],
)
def test_files_of_a_directory_are_read_in_order_and_one_that_is_damaged_is_named(
    tmp_path, suffix, write, problem
):
    folder = shards(tmp_path / "many", write, suffix)
    assert read(folder) == ROWS
    cut(folder / f"b{suffix}")
    assert refused(folder).startswith(f"{folder / 'b'}{suffix}{problem}")
    found = rows.rows(str(folder))  # lazily: what is whole comes first
    assert [next(found)[1] for _ in range(3)] == ROWS[:3]


def test_rows_of_a_directory_need_not_share_a_schema(tmp_path):
    odd = [{"a": 1}, {"a": 1.5, "b": None}, {"a": ["text", [{"role": "user"}]]}]
    (tmp_path / "mixed").mkdir()
    write_json(odd, tmp_path / "mixed" / "a.jsonl")
    assert read(tmp_path / "mixed") == odd


def test_names_of_files_say_their_split(tmp_path):
    folder = shards(tmp_path / "splits", write_json, ".jsonl", ("test", "train-0", "train-1"))
    assert read(folder) == ROWS[3:]
    assert read(folder, "", "test") == ROWS[:3]
    assert "no split 'val': it has train, test" in refused(folder, "", "val")
    assert "Available: ['default']" in refused(folder, "english")


def test_files_that_no_split_takes_are_named(tmp_path, caplog):
    read(shards(tmp_path / "whole", write_json, ".jsonl"))
    assert "not read" not in caplog.text
    folder = shards(tmp_path / "formats", write_parquet, ".parquet")
    write_json(ROWS, folder / "d.jsonl")
    assert read(folder) == ROWS
    assert f"{folder}: in no split, and not read: d.jsonl" in caplog.text
    named = shards(tmp_path / "named", write_json, ".jsonl", ("train", "extra", "test"))
    assert read(named) == ROWS[:3]
    assert f"{named}: in no split, and not read: extra.jsonl" in caplog.text


def test_a_directory_with_the_name_of_a_format_is_a_directory(tmp_path, monkeypatch):
    shards(tmp_path / "json", write_json, ".jsonl")
    write_json([{"text": "another"}], tmp_path / "other.jsonl")
    monkeypatch.chdir(tmp_path)
    assert read("json") == ROWS
    monkeypatch.chdir(tmp_path / "json")
    assert read(".") == ROWS


def test_a_readme_says_configurations_and_their_files(tmp_path):
    folder = shards(tmp_path / "configs", write_json, ".jsonl")
    yaml = "configs: [{config_name: one, data_files: a.jsonl}, {config_name: two, data_files: "
    (folder / "README.md").write_text(f"---\n{yaml}[b.jsonl, c.jsonl]}}]\n---\n")
    assert read(folder, "two") == ROWS[3:]
    assert "Available: ['one', 'two']" in refused(folder, "three")
    assert "['one', 'two']" in refused(folder)


def test_other_formats_are_streamed_and_one_that_is_damaged_is_named(tmp_path):
    folder = shards(tmp_path / "tables", write_csv, ".csv")
    assert read(folder) == [{"text": row["text"]} for row in ROWS]
    (folder / "b.csv").write_text('text\n"never closed\n')
    assert refused(folder).startswith(f"{folder / 'b.csv'}: damaged after row 0")


def test_a_directory_of_arrays_is_read_here_and_its_own_files_are_not_data(tmp_path, caplog):
    folder = shards(
        tmp_path / "arrays", lambda found, path: path.write_text(json.dumps(found)), ".json"
    )
    (folder / "dataset_infos.json").write_text("{}")
    assert read(folder) == ROWS
    (folder / "b.json").write_text('[{"text": null, "text": "a"}]')
    problem = "b.json, row 1: key 'text' occurs twice in one object"
    assert problem in refused(folder)
    assert "not read" not in caplog.text


def test_a_null_that_a_stream_puts_into_an_object_is_absent(tmp_path):
    table = pyarrow.Table.from_pylist([{"a": {"b": 1}, "c": [None]}, {"a": {"d": 2}, "c": None}])
    (tmp_path / "stream").mkdir()
    with pyarrow.ipc.new_file(tmp_path / "stream" / "a.arrow", table.schema) as out:
        out.write_table(table)
    assert read(tmp_path / "stream") == [{"a": {"b": 1}, "c": [None]}, {"a": {"d": 2}, "c": None}]


def test_columns_of_mixed_types_are_read_as_they_were(tmp_path):
    turn = {"role": "assistant", "content": "4"}
    mixed = [
        {"a": [1, "one", None, [turn]], "b": {"c": "x", "d": [2.5, {}]}},
        {"a": None, "b": None},
    ]
    columns = {name: [row[name] for row in mixed] for name in ("a", "b")}
    table = datasets.Dataset.from_dict(columns, on_mixed_types="use_json")
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "a.parquet") == read(tmp_path / "saved") == mixed


def test_a_directory_without_data_says_so(tmp_path):
    assert "doesn't contain any data files" in refused(tmp_path)


def test_what_save_to_disk_wrote_is_read_by_split_and_shard(tmp_path):
    table = datasets.Dataset.from_list(ROWS).with_format("numpy")
    table.save_to_disk(tmp_path / "one", num_shards=3)
    assert read(tmp_path / "one") == ROWS
    halves = datasets.DatasetDict({"train": table.select(range(4)), "val": table.select([7, 4])})
    halves.save_to_disk(tmp_path / "two")
    assert read(tmp_path / "two", "", "val") == [ROWS[7], ROWS[4]]
    assert "no split 'test': it has train, val" in refused(tmp_path / "two", "", "test")
    assert "no split 'val': it has train" in refused(tmp_path / "one", "", "val")
    shard = tmp_path / "one" / "data-00001-of-00003.arrow"
    cut(shard)
    assert refused(tmp_path / "one").startswith(f"{shard}: damaged Arrow after row 0")
    (tmp_path / "one" / "state.json").write_text("{")
    assert "state.json: not a line of JSON" in refused(tmp_path / "one")


def test_a_name_that_the_hub_cannot_give_says_what_was_tried(monkeypatch):
    def unreachable(self, name, **options):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    message = refused("owner/name", "all", "val")
    assert message.startswith(
        "owner/name: cannot be opened (tried configuration 'all', split 'val'"
    )
    assert "Name or service not known" in message
    assert "it is no directory here: name a local directory" in message
    assert "set HF_HUB_OFFLINE=1 to read what datasets.load_dataset has cached" in message


def test_a_mistyped_directory_is_told_from_what_the_hub_lacks(monkeypatch, tmp_path):
    with hub_standin.serving(monkeypatch, tmp_path):
        message = refused("prefs/train")
    assert "it is no directory here either: check the spelling" in message
    assert "HF_HUB_OFFLINE" not in message


def test_what_is_neither_here_nor_a_name_of_the_hub_is_not_asked_for():
    assert "does not exist" in refused("/no/such/place")


@pytest.mark.usefixtures("offline")
def test_offline_a_name_is_read_from_the_cache(tmp_path):
    message = refused("owner/name")
    assert "OfflineModeIsEnabled" in message
    # What is set already is no advice.
    assert "HF_HUB_OFFLINE=1" not in message
    assert "as HF_HUB_OFFLINE is set, only what datasets.load_dataset has cached is rea" in message
    shards(tmp_path / "name", write_json, ".jsonl")
    cache = datasets.config.HF_DATASETS_CACHE
    datasets.load_dataset(str(tmp_path / "name"))
    (cache / "name").rename(cache / "owner___name")  # as if it had come from the Hub
    assert read("owner/name") == ROWS
    assert "no split 'val': it has train" in refused("owner/name", "", "val")


def test_files_of_the_hub_are_read_where_they_lie(monkeypatch):
    remote = fsspec.filesystem("memory")
    remote.pipe(
        {"/hub/a.jsonl.gz": gzip.compress(lines(ROWS[:4])), "/hub/b.jsonl": lines(ROWS[4:])}
    )
    files = {"train": ["memory://hub/a.jsonl.gz", "memory://hub/b.jsonl"]}
    builder = SimpleNamespace(config=SimpleNamespace(data_files=files))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *at, **options: None)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *at: builder)
    assert read("owner/name") == ROWS
    remote.rm("/hub/b.jsonl")
    assert refused("owner/name").startswith("memory://hub/b.jsonl: cannot be read: FileNotFound")


# TFDS, written by hand: without TensorFlow it writes no lists of lists, but what has them is read.

CHATS = tfds.features.FeaturesDict({
    "prompt": tfds.features.Text(),
    "responses": tfds.features.Sequence(
        tfds.features.Sequence({"role": tfds.features.Text(), "content": tfds.features.Text()})
    ),
    "meta": {"good": np.bool_, "label": tfds.features.ClassLabel(names=["no", "yes"])},
    "ranks": tfds.features.Sequence(np.int64),
    "scores": tfds.features.Tensor(shape=(2,), dtype=np.float32),
})  # fmt: skip


def chat(prompt, **other):
    """One example, in the fields that TFDS makes of CHATS."""
    values = {
        "prompt": [prompt],
        "responses/role/ragged_flat_values": [b"assistant", b"user", b"assistant"],
        "responses/role/ragged_row_lengths_0": [1, 2],
        "responses/content/ragged_flat_values": ["ü".encode(), b"", b"c"],
        "responses/content/ragged_row_lengths_0": [1, 2],
        "meta/good": [1],
        "meta/label": [1],
        "ranks": [],
        "scores": [0.5, 2.0],
    }
    feature = {name: _feature(items) for name, items in (values | other).items()}
    features = tf_feature_pb2.Features(feature=feature)
    return tf_example_pb2.Example(features=features).SerializeToString()


def _feature(items):
    if items and isinstance(items[0], bytes):
        return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=items))
    if items and isinstance(items[0], float):
        return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=items))
    return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=items))


def prepared(folder, *contents):
    """A directory as TFDS prepares it, one shard for each list of examples."""
    folder.mkdir(parents=True)
    for n, examples in enumerate(contents):
        name = f"chats-train.array_record-{n:05}-of-{len(contents):05}"
        writer = ArrayRecordWriter(str(folder / name), "group_size:1")
        for example in examples:
            writer.write(example)
        writer.close()
    lengths = [len(examples) for examples in contents]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=CHATS,
        split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=lengths, num_bytes=1)],
        filename_template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        check_data=False,
    )
    return folder


def test_examples_of_tfds_are_rows_as_json_has_them(tmp_path):
    folder = prepared(tmp_path / "chats" / "1.0.0", [chat(b"Hi", ranks=[1, 0])], [chat(b"")])
    long = [{"role": "user", "content": ""}, {"role": "assistant", "content": "c"}]
    first = {
        "prompt": "Hi",
        "responses": [[{"role": "assistant", "content": "ü"}], long],
        "meta": {"good": True, "label": 1},
        "ranks": [1, 0],
        "scores": [0.5, 2.0],
    }
    assert read(folder) == [first, first | {"prompt": "", "ranks": []}]
    assert read(tmp_path) == read(folder)  # a directory above is as good
    assert type(read(folder)[0]["meta"]["good"]) is bool
    shard = folder / "chats-train.array_record-00001-of-00002"
    assert [where for where, _ in rows.rows(str(folder))][1] == f"{shard}, row 1"
    assert "no split 'val': it has train" in refused(folder, "", "val")


def test_text_of_tfds_that_is_not_utf8_names_row_and_field(tmp_path):
    bad = chat(b"Hi", **{"responses/content/ragged_flat_values": [b"a", b"ok\xff", b"c"]})
    folder = prepared(tmp_path / "chats", [chat(b"Hi"), bad])
    problem = "row 2: field 'responses[1][0].content': not UTF-8 at byte 2"
    assert problem in refused(folder)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_shard_of_tfds_is_named(tmp_path, damage):
    folder = prepared(tmp_path / "chats", [chat(b"a")], [chat(b"b")], [chat(b"c")])
    shard = folder / "chats-train.array_record-00001-of-00003"
    damage(shard)
    assert refused(folder).startswith(f"{shard}, row 1: cannot be read: ")


def test_a_format_that_needs_tensorflow_is_refused_by_name(tmp_path):
    folder = prepared(tmp_path / "chats", [chat(b"a")])
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    message = refused(folder)
    assert "is prepared as tfrecord" in message
    assert "file_format='array_record'" in message


def test_of_several_prepared_data_sets_one_is_named_by_its_configuration(tmp_path):
    for n, config in enumerate(("one", "two")):
        prepared(tmp_path / config / "1.0.0", [chat(b"x" * n)])
    assert read(tmp_path, "two")[0]["prompt"] == "x"
    for config in ("", "three"):
        message = refused(tmp_path, config)
        assert "name one of the prepared data sets" in message
        assert str(tmp_path / "one" / "1.0.0") in message


def test_a_name_in_tfds_is_read_where_it_is_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    prepared(tmp_path / "chats" / "small" / "1.0.0", [chat(b"Hi")])
    for name in ("tfds:chats/small", "tfds:chats/small:1.0.0"):
        assert read(name)[0]["prompt"] == "Hi"
    assert read("tfds:chats:1.0.0", "small")[0]["prompt"] == "Hi"


def test_a_name_that_tfds_does_not_know_or_has_not_prepared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    assert "tfds:no_such_data: cannot be opened: " in refused("tfds:no_such_data")
    message = refused("tfds:ai2_arc")
    assert "is not prepared in" in message
    assert "file_format='array_record').download_and_prepare()" in message
