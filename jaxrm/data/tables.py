"""Rows out of Parquet and Arrow files, as JSON would have them.

Three things of such tables are no part of the data. A struct has all its keys in every row, so one
that is null in an object within a row is absent there. `datasets` keeps columns of mixed types as
texts of JSON, which become values again. And a column may hold what Python has no value for, a time
before the year 1 or in an unknown zone: an `Unreadable` is in its place, which matters to whoever
asks for that column and to nobody else. Maps are objects.
"""

from __future__ import annotations

import collections
import json
import logging
from collections.abc import Iterable, Iterator
from typing import IO

import pyarrow
import pyarrow.parquet

from jaxrm.data.columns import Row, Unreadable
from jaxrm.data.comparison import fault
from jaxrm.errors import DataError

log = logging.getLogger(__name__)

PARQUET = b"PAR1"
"""How a Parquet file begins."""


def parquet_rows(file: IO[bytes], name: str) -> Iterator[tuple[int, Row]]:
    """The rows of an open Parquet file, numbered from 1.

    Raises:
        DataError: the file is damaged, two columns have one name, or text is not UTF-8, naming the
            file, and the row and column where they are known.
    """
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for number, row in _rows(table.schema_arrow, table.iter_batches(1024), name):
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name}: damaged Parquet after row {number}: {error}") from error


def arrow_rows(path: str) -> Iterator[tuple[int, Row]]:
    """The rows of a file of Arrow's stream format; numbers and errors as for `parquet_rows`."""
    number = 0
    try:
        with pyarrow.memory_map(path) as file, pyarrow.ipc.open_stream(file) as stream:
            for number, row in _rows(stream.schema, stream, path):
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged Arrow after row {number}: {error}") from error


def without_nulls(value: object) -> object:
    """A value whose objects, however deep, have no key that is null; items of lists stay."""
    if type(value) is dict:
        return {
            name: part if type(part) is str else without_nulls(part)
            for name, part in value.items()
            if part is not None
        }
    if type(value) is list:
        return [without_nulls(item) for item in value]
    return value


def _rows(
    schema: pyarrow.Schema, batches: Iterable[pyarrow.RecordBatch], name: str
) -> Iterator[tuple[int, Row]]:
    twice = [column for column, n in collections.Counter(schema.names).items() if n > 1]
    if twice:
        problem = f"two columns are named {twice[0]!r}: leave one of them, or rename it"
        raise DataError(f"{name}: {problem}")
    columns = [_Column(field, name) for field in schema]
    number = 0
    for batch in batches:
        read = [
            column.values(part, number) for column, part in zip(columns, batch.columns, strict=True)
        ]
        for cells in zip(*read, strict=True):
            number += 1
            yield number, dict(zip(schema.names, cells, strict=True))


class _Column:
    """One column of a file, which says once that it holds something unreadable."""

    def __init__(self, field: pyarrow.Field, file: str):
        self.name, self.type, self.file = field.name, field.type, file
        self.mixed, self.told = _is_mixed(field.type), False

    def values(self, array: pyarrow.Array, before: int) -> list:
        """The column in a batch that comes after so many rows."""
        try:
            return [self._plain(value) for value in array.to_pylist(maps_as_pydicts="strict")]
        except Exception:  # each type, and the library of its zone, has errors of its own
            return [self._value(scalar, before + i) for i, scalar in enumerate(array, start=1)]

    def _plain(self, value: object) -> object:
        value = without_nulls(value)
        return _unmix(value, self.type) if self.mixed else value

    def _value(self, scalar: pyarrow.Scalar, number: int) -> object:
        where = f"{self.file}, row {number}"
        try:
            return self._plain(scalar.as_py(maps_as_pydicts="strict"))
        except UnicodeDecodeError as error:
            raise fault(where, self.name, f"not UTF-8 at byte {error.start}") from error
        except Exception as error:
            reason = f"a {self.type} that Python cannot hold ({error})"
            if not self.told:
                problem = f"column {self.name!r} holds {reason}"
                log.warning("%s: %s: refused where it is used", where, problem)
                self.told = True
            return Unreadable(reason, _may_hold_text(self.type))


def _may_hold_text(kept_as: pyarrow.DataType) -> bool:
    """Whether a column holds anything but numbers, truths and times."""
    if pyarrow.types.is_dictionary(kept_as):
        return _may_hold_text(kept_as.value_type)
    parts = [kept_as.field(i).type for i in range(kept_as.num_fields)]
    plain = pyarrow.types.is_primitive(kept_as) or pyarrow.types.is_decimal(kept_as)
    return any(map(_may_hold_text, parts)) if parts else not plain


def _is_mixed(kept_as: pyarrow.DataType) -> bool:
    """Whether a column holds values of mixed types, which `datasets` keeps as texts of JSON."""
    return isinstance(kept_as, pyarrow.JsonType) or any(
        _is_mixed(kept_as.field(i).type) for i in range(kept_as.num_fields)
    )


def _unmix(value, kept_as: pyarrow.DataType):
    """A value of such a column as it was."""
    if value is None or not _is_mixed(kept_as):
        return value
    if isinstance(kept_as, pyarrow.JsonType):
        return json.loads(value)
    if isinstance(value, list):
        return [_unmix(item, kept_as.field(0).type) for item in value]
    return {name: _unmix(part, kept_as.field(name).type) for name, part in value.items()}
