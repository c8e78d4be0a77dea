"""The command prints what it finds and writes every number, or names what it cannot read."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jaxrm.data import audit, toy
from jaxrm.data.audit import Config
from jaxrm.errors import DataError

QUESTION = "How do volcanoes form, and why do some of them erupt without any warning?"
NEAR_COPY = "How do volcanoes form, and why do some of those erupt without any warning?"


def pair(prompt, chosen, rejected, **known):
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": chosen,
        "rejected": rejected,
    } | known


@pytest.fixture
def written(tmp_path):
    """A source of 41 rows, one of them near an evaluation prompt, and two evaluation sets."""
    source = [
        pair(f"What is {i} and {i + 1}?", f"It is {2 * i + 1}.", "No idea") for i in range(40)
    ]
    unranked = {"prompt": "raw", "responses": ["a", "b"], "id": "scored"}
    files = {
        "source": [*source, pair(QUESTION, "Magma rises.", "They grow.", id="leak")],
        "touched": [
            pair(NEAR_COPY, "Magma.", "Nobody knows.", id="hit"),
            pair("Why?", "So.", "Eh"),
        ],
        "clean": [unranked],
    }
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
    return lambda name: str(tmp_path / f"{name}.jsonl")


def test_everything_that_is_found_is_printed_and_written(written, tmp_path, capsys):
    out = tmp_path / "new" / "audit.json"
    against = (written("touched"), written("clean"))
    audit.main(
        Config(written("source"), against=against, tokenizer=toy.TOKENIZER, max_length=30, out=out)
    )
    report = json.loads(out.read_text("utf-8"))
    assert (report["counts"]["comparisons"], report["counts"]["prompts"]) == (41, 41)
    assert report["histograms"]["responses"] == {"2": 41}
    assert report["parameters"]["max_length"] == 30
    assert report["tokens"]["prompt"]["n"] == 41
    assert report["dropped"]["over-length"] >= 1
    touched, clean = report["overlap"]["touched"], report["overlap"]["clean"]
    assert (touched["same"], touched["near"], touched["passage"]) == (0, 1, 0)
    (match,) = touched["matches"]
    assert (match["evaluation"], match["source"], touched["touched"]) == ("hit", "leak", ["hit"])
    assert 0.8 <= match["similarity"] < 1
    assert (clean["prompts"], clean["matches"]) == (1, [])
    assert report["floors"]["clean"][""] == {"comparisons": 1, "longer": None, "bag_of_words": None}

    printed = capsys.readouterr().out
    assert "touched: near 0." in printed
    assert "leak: how do volcanoes form" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("clean") and "-" in line]
    assert line.split() == ["clean", "1", "0", "-", "-", "-"]


def test_columns_are_aligned_and_examples_are_limited(written, capsys):
    audit.main(Config(written("source"), against=(written("touched"),), examples=0))
    printed = capsys.readouterr().out
    assert "leak" not in printed
    assert "touched: 1 more" in printed
    table = printed.split("lengths in characters\n\n")[1].split("\n\n")[0].splitlines()
    assert len({len(line) for line in table}) == 1
    assert "tokens" not in printed


def test_two_evaluation_sets_of_one_name_are_refused(written, tmp_path):
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "clean.jsonl"
    twin.write_text("{}\n")
    with pytest.raises(DataError, match="named clean"):
        audit.main(Config(written("source"), against=(written("clean"), str(twin))))


def test_a_file_that_cannot_be_read_is_named_before_anything_is_written(written, tmp_path):
    bad, out = tmp_path / "bad.jsonl", tmp_path / "audit.json"
    bad.write_text('{"text": "no preference"}\n')
    command = [sys.executable, "-m", "jaxrm.data.audit", written("source"), "--against", bad]
    done = subprocess.run(
        [*map(str, command), "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: {bad}, row 1: unknown form" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
