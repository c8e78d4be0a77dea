"""Parquet and Arrow are read as the JSON that they were made of, whatever else lies beside it."""

from __future__ import annotations

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm.data import sources
from jaxrm.data.columns import Unreadable
from jaxrm.data.comparison import kind
from jaxrm.data.tables import arrow_rows, parquet_rows, without_nulls
from jaxrm.errors import DataError


def write_parquet(table, path):
    pyarrow.parquet.write_table(table, path)


def write_arrow(table, path):
    with pyarrow.ipc.new_stream(str(path), table.schema) as out:
        out.write_table(table)


def read_parquet(path):
    with path.open("rb") as file:
        return [row for _, row in parquet_rows(file, str(path))]


def read_arrow(path):
    return [row for _, row in arrow_rows(str(path))]


BOTH = pytest.mark.parametrize(
    ("write", "read"), [(write_parquet, read_parquet), (write_arrow, read_arrow)]
)


@BOTH
def test_what_a_struct_lacks_is_absent_and_what_a_row_or_a_list_lacks_is_null(
    tmp_path, write, read
):
    calls = [
        {"calls": [{"name": "weather", "with": {"city": "Lima"}}, None], "scores": [1.0, None]},
        {"calls": [{"name": "clock", "with": {"zone": {"hours": 3}}}], "scores": None},
    ]
    table = pyarrow.Table.from_pylist(calls)
    assert table["calls"][0].as_py()[0]["with"] == {"city": "Lima", "zone": None}
    write(table, tmp_path / "a")
    assert read(tmp_path / "a") == calls


def has_null_key(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    keys = isinstance(value, dict) and None in parts
    return keys or any(map(has_null_key, parts))


KEYS = st.sampled_from("abc")


@given(st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(KEYS, x)))
@settings(max_examples=50)
def test_nulls_go_from_objects_alone(value):
    found = without_nulls(value)
    assert not has_null_key(found)
    assert has_null_key(value) or found == value


UNKNOWN = {
    "time": pyarrow.array([0, 2**62], pyarrow.timestamp("us")),
    "span": pyarrow.array([0, 2**62], pyarrow.duration("s")),
    "zone": pyarrow.array([0, 0], pyarrow.timestamp("us", "Mars/Olympus")),
    "twice": pyarrow.StructArray.from_arrays([pyarrow.array([1, 2])] * 2, names=["x", "x"]),
}


@pytest.mark.parametrize("name", UNKNOWN)
@BOTH
def test_a_column_that_python_cannot_hold_is_told_once_and_ends_nothing(
    tmp_path, write, read, name, caplog
):
    texts = pyarrow.array(["x", "y"])
    write(pyarrow.table({"chosen": texts, name: UNKNOWN[name]}), tmp_path / "a")
    found = read(tmp_path / "a")
    assert [row["chosen"] for row in found] == ["x", "y"]
    assert isinstance(found[1][name], Unreadable)
    assert kind(found[1][name]) == "a Unreadable"
    (told,) = caplog.messages
    assert told.startswith(f"{tmp_path / 'a'}, row ")
    assert f"column '{name}' holds a {UNKNOWN[name].type} that Python cannot hold" in told


def test_what_is_unreadable_is_refused_where_it_is_used(tmp_path):
    pair = {"prompt": ["p", "p"], "chosen": ["x", "y"], "rejected": ["z", "z"]}
    path = tmp_path / "a.parquet"
    write_parquet(pyarrow.table(pair | {"made": UNKNOWN["time"]}), path)
    assert len(sources.read(str(path))) == 2
    write_parquet(pyarrow.table(pair | {"margin": UNKNOWN["time"]}), path)
    with pytest.raises(DataError, match="field 'margin': expected a number, found a"):
        sources.read(str(path))


@BOTH
def test_two_columns_of_one_name_are_refused(tmp_path, write, read):
    one = pyarrow.array(["x"])
    write(pyarrow.table([one, one, one], names=["a", "b", "a"]), tmp_path / "a")
    with pytest.raises(DataError, match=r"/a: two columns are named 'a': leave one"):
        read(tmp_path / "a")


@BOTH
def test_text_that_is_not_utf8_names_its_row_and_column(tmp_path, write, read):
    broken = pyarrow.array([b"4", b"\xff"]).view(pyarrow.string())
    write(pyarrow.table({"chosen": broken}), tmp_path / "a")
    with pytest.raises(DataError, match="/a, row 2: field 'chosen': not UTF-8 at byte 0"):
        read(tmp_path / "a")


@BOTH
def test_a_map_is_an_object(tmp_path, write, read):
    kept_as = pyarrow.map_(pyarrow.string(), pyarrow.string())
    write(pyarrow.table({"a": pyarrow.array([[("city", "Lima")]], kept_as)}), tmp_path / "a")
    assert read(tmp_path / "a") == [{"a": {"city": "Lima"}}]
