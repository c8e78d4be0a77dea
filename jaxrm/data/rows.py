"""Rows of data as plain Python values, from wherever they lie: lazily, in order, with their place.

A row is a dict of text, numbers, booleans, null, lists and dicts. A location is one of

- a file: JSON lines or one array of JSON, plain or gzipped, or Parquet, told by what it holds;
- a directory that TFDS prepared, or one above it (`name/config/version`);
- a directory that `datasets` saved with `save_to_disk`;
- a directory of data files, or a name on the Hugging Face Hub, "owner/name";
- "tfds:name[/config][:version]", a TFDS data set that is prepared on this machine.

Which files make up a split of a directory or of a Hub name is for `datasets` to say: by their
names, or by the YAML in their README. Files of JSON and of Parquet are then read here, one after
another, so an error names the file and the row, rows need not share one schema, and nothing is
copied into a cache; other formats (CSV) `datasets` streams. TFDS is read without TensorFlow, which
takes a data set prepared in a format of random access.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

from jaxrm.data.comparison import fault
from jaxrm.data.fields import Row
from jaxrm.data.json_rows import AS_TABLE, HEAD, buffered, json_row, json_rows, refuse_others
from jaxrm.data.tables import PARQUET, arrow_rows, parquet_rows, without_nulls
from jaxrm.errors import DataError, phrase

log = logging.getLogger(__name__)

# `datasets`, `huggingface_hub` and `tensorflow_datasets` take a second to import, so the functions
# that use them import them.

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
"""Endings of the files that are read here."""

SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves beside the data of a DatasetDict, and of each Dataset."""

TABLES_OF_TEXT = (".csv", ".tsv")

TFDS = "tfds:"

RECORD = "json"
"""A TFDS data set whose only feature has this name holds a row of JSON in each example, as
`jaxrm.data.tfds_builder` writes."""


def rows(location: str, config: str = "", split: str = "train") -> Iterator[tuple[str, Row]]:
    """The rows of one split, each with the file and row in words: ("a.jsonl, row 3", {...}).

    Args:
        location: a file, directory or name, as the module's docstring lists.
        config: the data set's configuration, where it has several.
        split: the part of the data set; a file is all "train".

    Raises:
        DataError: it does not exist, cannot be reached or is damaged (naming the file, and the row
            where it is known), or it has no such configuration or split (naming those it has).
    """
    path = Path(location)
    if location.startswith(TFDS):
        return _tfds_rows(location.removeprefix(TFDS), config, split)
    if suffix_of(location) or path.is_file():
        return _single_file_rows(location, config, split)
    if path.is_dir():
        return _directory_rows(path, config, split)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", location):
        return _hub_rows(location, config, split)
    raise DataError(f"{location}: does not exist, and is no name on the Hub (owner/name)")


def suffix_of(name: str) -> str:
    """The ending by which a file is known to be read here, or ""."""
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _single_file_rows(location: str, config: str, split: str) -> Iterator[tuple[str, Row]]:
    if not suffix_of(location):
        advice = f"use {', '.join(SUFFIXES)}"
        if location.endswith(TABLES_OF_TEXT):
            advice = f"tables of text are read from directories: {AS_TABLE}"
        raise DataError(f"{location}: not a preference file: {advice}")
    if not Path(location).is_file():
        problem = "is not a file" if Path(location).exists() else "does not exist"
        raise DataError(f"{location}: {problem}")
    if config or split != "train":
        raise DataError(f"{location}: a file has no configurations or splits: name it alone")
    return _file_rows(location)


def _file_rows(name: str) -> Iterator[tuple[str, Row]]:
    """Rows of one file: a path, or a URL that `fsspec` opens. What it holds says how it is read."""
    remote = "://" in name
    # The clients of remote file systems have errors of their own, which no class unites.
    unreadable = (Exception,) if remote else (OSError,)
    try:
        with buffered(_open_url(name) if remote else open(name, "rb")) as file:
            for number, row in _reader(file.peek(HEAD), name)(file, name):
                yield f"{name}, row {number}", row
    except DataError:
        raise
    except unreadable as error:
        raise DataError(f"{name}: cannot be read: {phrase(error)}") from error


def _open_url(name: str) -> IO[bytes]:
    import fsspec

    return fsspec.open(name, "rb").open()


def _reader(head: bytes, name: str) -> Callable[[IO[bytes], str], Iterator[tuple[int, Row]]]:
    """What reads a file that begins like this."""
    if head.startswith(PARQUET):
        return parquet_rows
    if name.endswith(".parquet"):
        refuse_others(head, name)
        problem = f"is no Parquet file, which begins with PAR1, and not with {head[:20]!r}"
        raise DataError(f"{name}: {problem}: copy it again, or name it for what it is")
    return json_rows


def _directory_rows(path: Path, config: str, split: str) -> Iterator[tuple[str, Row]]:
    if prepared := _prepared(path, config):
        import tensorflow_datasets as tfds

        return _example_rows(tfds.builder_from_directory(prepared), split, str(prepared))
    if any((path / name).exists() for name in SAVED):
        return _saved_rows(path, split)
    # Made absolute, or `datasets` takes a directory named json for its reader of JSON.
    return _data_set_rows(os.path.abspath(path), config, split)


def _saved_rows(path: Path, split: str) -> Iterator[tuple[str, Row]]:
    """Rows of what `save_to_disk` wrote: a DatasetDict, with a folder for each split, or one
    Dataset."""
    of_dict, of_one = SAVED
    if (path / of_dict).exists():
        splits, part = _read_json(path / of_dict)["splits"], path / split
    else:
        splits, part = [_read_json(path / of_one)["_split"] or "train"], path
    _check_split(str(path), split, splits)
    for shard in _read_json(part / of_one)["_data_files"]:
        path = str(part / shard["filename"])
        for number, row in arrow_rows(path):
            yield f"{path}, row {number}", row


def _read_json(path: Path) -> Row:
    try:
        return json_row(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _hub_rows(name: str, config: str, split: str) -> Iterator[tuple[str, Row]]:
    import huggingface_hub
    from huggingface_hub import constants

    # Without a network `datasets` retries for half a minute before it says so. Told that it is
    # offline, it looks in its cache alone.
    if not constants.HF_HUB_OFFLINE:
        try:
            huggingface_hub.HfApi().dataset_info(name, timeout=10)
        except Exception as error:
            raise _not_found(name, config, split, error) from error
    return _data_set_rows(name, config, split)


def _data_set_rows(location: str, config: str, split: str) -> Iterator[tuple[str, Row]]:
    """Rows of a directory of data files or of a name on the Hub."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(location, config or None)
    except Exception as error:
        raise _not_found(location, config, split, error) from error
    if hasattr(builder.config, "keep_default_na"):  # CSV, where pandas takes "None" for nothing
        builder.config.keep_default_na, builder.config.na_values = False, [""]
    files = builder.config.data_files or {}
    if Path(location).is_dir() and len(builder.builder_configs) == 1:
        _tell_unread(Path(location), files)
    _check_split(location, split, list(files) or list(builder.info.splits or {}))
    files = list(files.get(split, []))
    if files and all(map(suffix_of, files)):
        for file in files:
            yield from _file_rows(file)
    else:
        yield from _streamed_rows(builder, split, files, location)


def _is_table(name: str) -> bool:
    """Whether `datasets` would read a file of this name, and this module does not."""
    return name.removesuffix(".gz").endswith((*TABLES_OF_TEXT, ".arrow"))


def _tell_unread(path: Path, splits: Mapping[str, Collection[str]]) -> None:
    """Says which files of a directory are in no split: `datasets` takes those of one format, and
    where names say a split, those alone."""
    from datasets.data_files import FILES_TO_IGNORE

    read = {Path(file).resolve() for files in splits.values() for file in files}
    readable = (
        file for file in sorted(path.rglob("*")) if suffix_of(file.name) or _is_table(file.name)
    )
    readable = (file for file in readable if file.name not in FILES_TO_IGNORE)
    if unread := [str(file.relative_to(path)) for file in readable if file.resolve() not in read]:
        log.warning("%s: in no split, and not read: %s", path, ", ".join(unread))


def _streamed_rows(
    builder, split: str, files: list[str], location: str
) -> Iterator[tuple[str, Row]]:
    """Rows as `datasets` streams them, shard by shard, so that an error can name the shard's
    file."""
    name, number = location, 0
    try:
        stream = builder.as_streaming_dataset(split)
        for i in range(stream.num_shards):
            name = files[i] if len(files) == stream.num_shards else location
            number = 0
            shard = stream.shard(num_shards=stream.num_shards, index=i)
            for number, row in enumerate(shard, start=1):
                yield f"{name}, row {number}", {key: without_nulls(row[key]) for key in row}
    except Exception as error:  # each format is read by a library of its own
        raise DataError(f"{name}: damaged after row {number}: {phrase(error)}") from error


def _prepared(path: Path, config: str) -> Path | None:
    """The directory that TFDS prepared at or below `path`; None where there is none."""
    depths = ("", "*/", "*/*/", "*/*/*/")  # name/config/version
    folders = sorted(file.parent for depth in depths for file in path.glob(depth + "features.json"))
    folders = [folder for folder in folders if (folder / "dataset_info.json").exists()]
    chosen = [at for at in folders if not config or config in at.relative_to(path).parts]
    if folders and len(chosen) != 1:
        listed = ", ".join(map(str, folders))
        raise DataError(f"{path}: name one of the prepared data sets that it holds: {listed}")
    return chosen[0] if chosen else None


def _tfds_rows(name: str, config: str, split: str) -> Iterator[tuple[str, Row]]:
    import tensorflow_datasets as tfds

    if config:
        name, colon, version = name.partition(":")
        name = f"{name}/{config}{colon}{version}"
    try:
        builder = tfds.builder(name)
    except Exception as error:  # what a builder does when it is made is its own affair
        raise DataError(f"{TFDS}{name}: cannot be opened: {phrase(error)}") from error
    if not builder.data_path.exists():
        # Not done here: without a network it retries for minutes, and many need TensorFlow for it.
        prepare = f"tfds.builder({name!r}, file_format='array_record').download_and_prepare()"
        problem = f"is not prepared in {builder.data_path}: run {prepare}, or name a directory"
        raise DataError(f"{TFDS}{name}: {problem}")
    return _example_rows(builder, split, TFDS + name)


def _example_rows(builder, split: str, place: str) -> Iterator[tuple[str, Row]]:
    """Rows of a prepared TFDS data set, in the order in which they lie in its shards."""
    _check_split(place, split, list(builder.info.splits))
    try:
        examples = builder.as_data_source(split)
    except NotImplementedError as error:
        problem = f"is prepared as {builder.info.file_format.value}, which only TensorFlow reads: "
        problem += "prepare it again with file_format='array_record'"
        raise DataError(f"{place}: {problem}") from error
    features, index = builder.info.features, 0
    for shard in builder.info.splits[split].file_instructions:
        for number in range(1, shard.examples_in_shard + 1):
            where = f"{shard.filename}, row {number}"
            try:
                example = examples[index]
            except Exception as error:  # array_record, protobuf and TFDS raise what they like
                raise DataError(f"{where}: cannot be read: {phrase(error)}") from error
            if list(features) == [RECORD]:
                yield where, json_row(example[RECORD], where)
            else:
                yield where, _plain(example, features, where)
            index += 1


def _plain(value, feature, where: str, field: str = ""):
    """An example, or a part of one, as JSON would have it.

    TFDS keeps a sequence of objects as an object of sequences, and text as bytes.
    """
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        path = f"{field}." if field else ""
        parts = ((name, value[name], inner) for name, inner in feature.items())
        return {name: _plain(part, inner, where, path + name) for name, part, inner in parts}
    if isinstance(feature, tfds.features.Sequence):
        parts = enumerate(_unstack(value))
        return [_plain(part, feature.feature, where, f"{field}[{i}]") for i, part in parts]
    return _decoded(value.tolist() if hasattr(value, "tolist") else value, where, field)


def _unstack(value) -> list:
    """The items of a sequence, of objects too: {"a": [1, 2]} is [{"a": 1}, {"a": 2}]."""
    if not isinstance(value, dict):
        return list(value)
    columns = [_unstack(column) for column in value.values()]
    return [dict(zip(value, items, strict=True)) for items in zip(*columns, strict=True)]


def _decoded(value, where: str, field: str):
    if isinstance(value, list):
        return [_decoded(item, where, f"{field}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise fault(where, field, f"not UTF-8 at byte {error.start}") from error


def _check_split(location: str, split: str, splits: Collection[str]) -> None:
    if split not in splits:
        names = ", ".join(map(str, splits)) or "none"
        raise DataError(f"{location}: no split {split!r}: it has {names}")


def _not_found(location: str, config: str, split: str, error: Exception) -> DataError:
    tried = f"tried configuration {config or 'default'!r}, split {split!r}"
    message = f"{location}: cannot be opened ({tried}): {phrase(error)}"
    if not Path(location).exists():
        message += f"; {_advice(error)}"
    return DataError(message)


def _advice(error: Exception) -> str:
    """What to do about a name that is no directory here and cannot be had of the Hub."""
    from huggingface_hub import constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return (
            "it is no directory here, and as HF_HUB_OFFLINE is set, only what "
            "datasets.load_dataset has cached is read: unset it, or name a local directory of the "
            "data set's files"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "it is no directory here either: check the spelling; for a private or gated data set "
            "accept the terms on its page, and log in (hf auth login)"
        )
    return (
        "it is no directory here: name a local directory of its files instead, or set "
        "HF_HUB_OFFLINE=1 to read what datasets.load_dataset has cached"
    )
