"""Where a benchmark's rows are looked for, and which rows are refused."""

import json

import pytest

from jaxrm.data import formats
from jaxrm.errors import DataError
from jaxrm.evaluate.benchmark import Benchmark, Part, read, short_of


def benchmark(*parts, **expected):
    def comparisons(rows, part):
        return formats.comparisons(rows, stem=part.split)

    return Benchmark("small", "Small", parts, comparisons, expected, rules=())


SHARD = "{}-00000-of-00001.jsonl"
TWO = Part("owner/one", split="a"), Part("owner/two", split="b")


def row(n, **more):
    prompt = [{"role": "user", "content": f"q{n}"}]
    return {"prompt": prompt, "chosen": "yes", "rejected": "no", **more}


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_holds_all_parts(tmp_path):
    path = write(tmp_path / "rows.jsonl", row(1), row(2))
    assert [c.id for c in read(benchmark(*TWO), path)] == ["a/1", "a/2"]


def test_a_directory_of_data_sets_as_on_the_hub(tmp_path):
    write(tmp_path / "one" / "data" / SHARD.format("a"), row(1))
    write(tmp_path / "two" / "data" / SHARD.format("b"), row(2), row(3))
    assert [c.id for c in read(benchmark(*TWO), tmp_path)] == ["a/1", "b/1", "b/2"]


def test_a_directory_of_one_data_set_with_its_splits(tmp_path):
    write(tmp_path / "data" / SHARD.format("a"), row(1))
    write(tmp_path / "data" / SHARD.format("b"), row(2))
    assert [c.id for c in read(benchmark(*TWO), tmp_path)] == ["a/1", "b/1"]


@pytest.mark.parametrize("name", ["one.jsonl", "small.jsonl"])
def test_a_directory_of_files_named_as_the_data_set_or_the_benchmark(tmp_path, name):
    write(tmp_path / "another.jsonl", row(1))
    write(tmp_path / name, row(1), row(2))
    (tmp_path / "small.txt").write_text("notes")
    assert [c.id for c in read(benchmark(*TWO), tmp_path)] == ["a/1", "a/2"]


def test_rows_that_are_not_there_are_counted(tmp_path):
    rows = [row(n, subset="x" if n < 3 else "y") for n in range(5)]
    found = read(benchmark(*TWO, x=3, y=2, z=4), write(tmp_path / "rows.jsonl", *rows))
    wanted = benchmark(*TWO, x=3, y=3, z=4)
    assert short_of(wanted, found) == {"y": (2, 3), "z": (0, 4)}
    assert short_of(benchmark(*TWO), found) == {}


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        (row(2, subset="z"), r"row 2: field 'subset': 'z' is no subset of small: .* x, y$"),
        (row(2, subset="x", id="first"), r"row 2: field 'id': 'first' is also the id of .*row 1$"),
    ],
)
def test_a_row_that_cannot_be_placed_is_named(tmp_path, second, problem):
    path = write(tmp_path / "rows.jsonl", row(1, subset="y", id="first"), second)
    with pytest.raises(DataError, match=problem):
        read(benchmark(*TWO, x=1, y=1), path)


def test_rows_without_an_order_are_named(tmp_path):
    unranked = {"prompt": "q", "responses": ["a", "b"]}
    with pytest.raises(DataError, match=r"row 1: field 'ranks': missing"):
        read(benchmark(*TWO), write(tmp_path / "rows.jsonl", unranked))


def test_no_rows_are_an_error(tmp_path):
    with pytest.raises(DataError, match="no rows of small"):
        read(benchmark(*TWO), write(tmp_path / "rows.jsonl"))
