"""The command prints what it finds and writes every number, or names what it cannot read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrm import toy
from jaxrm.data import formats, sources
from jaxrm.data.audit import __main__ as audit
from jaxrm.data.audit.__main__ import Config
from jaxrm.errors import DataError, OptionError
from tests.huggingface import hub_standin

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
    assert "same or near in the source: 1 (--write FILE leaves these out)" in printed
    # What is too long names the option and where it is.
    over = report["dropped"]["over-length"]
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("over-length  ")]
    assert row[:4] == ["over-length", "--max-length", "30", str(over)]
    assert f"over-length: {written('source')}, row " in printed
    assert "or shortens prompts by --truncate-prompt" in printed
    n, held_out = (report["floors"][name][""]["longer"]["n"] for name in ("source", "held out"))
    assert n == 41
    assert f"learnt from 41 comparisons with an order; that of 'held out', one prompt in 5, from " \
           f"the other {41 - held_out}." in printed  # fmt: skip
    assert printed.splitlines()[-1] == f"every number and match: {out}"
    (line,) = [line for line in printed.splitlines() if line.startswith("clean") and "—" in line]
    assert line.split() == ["clean", "1", "0", "—", "—", "—"]


def test_a_tokenizer_of_the_hub_is_recorded_with_its_revision(written, tmp_path, monkeypatch):
    with hub_standin.serving(monkeypatch, tmp_path) as hub:
        # The weights are not asked for.
        files = hub_standin.files_of(toy.TOKENIZER) | {"model.safetensors": b"weights"}
        commit = hub.repo("owner/name", files).refs["main"]
        out = tmp_path / "audit.json"
        audit.main(Config(written("source"), tokenizer=Path("owner/name"), out=out))
        assert "model.safetensors" not in hub.downloaded()
    report = json.loads(out.read_text("utf-8"))
    parameters = report["parameters"]
    assert (parameters["tokenizer"], parameters["tokenizer_revision"]) == ("owner/name", commit)
    assert report["tokens"]["prompt"]["n"] == 41


def test_columns_are_aligned_and_examples_are_limited(written, capsys):
    audit.main(Config(written("source"), against=(written("touched"),), examples=0))
    printed = capsys.readouterr().out
    assert "leak" not in printed
    assert "touched: 1 more (--examples, --out)" in printed
    table = printed.split("lengths in characters\n\n")[1].split("\n\n")[0].splitlines()
    assert len({len(line) for line in table}) == 1
    assert "tokens" not in printed


@pytest.fixture
def dirty(written):
    """The source, and after it a tie, a contradicted pair and a duplicate."""
    path = Path(written("source")).with_name("dirty.jsonl")
    more = [
        {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 0], "id": "tie"},
        {"prompt": "p", "responses": ["a", "b"], "ranks": [0, 1], "id": "ab"},
        {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 0], "id": "ba"},
        {"prompt": "q", "responses": ["a", "b"], "scores": [1, 0.5], "id": "unranked"},
        {"prompt": "q", "responses": ["b", "a"], "id": "again"},
    ]
    rows = [*map(formats.to_row, sources.read(written("source"))), *more]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_what_is_found_is_taken_out_and_counted_and_then_nothing_is(
    written, dirty, tmp_path, capsys
):
    clean, out = tmp_path / "new" / "clean.jsonl", tmp_path / "audit.json"
    against = (written("touched"), written("clean"))
    audit.main(Config(str(dirty), against=against, write=clean, out=out))
    counts = json.loads(out.read_text("utf-8"))["cleaning"]
    assert counts == {
        "read": 46, "same": 0, "near": 1, "empty": 0, "identical": 0, "tie": 1, "contradiction": 2,
        "duplicate": 1, "kept": 41,
    }  # fmt: skip
    printed = capsys.readouterr().out
    table = printed.split("what is taken out, by the first reason\n\n")[1].splitlines()
    assert [line.split() for line in table[2:5]] == [
        ["read", "46", "100.0%"],
        ["same", "0", "0.0%"],
        ["near", "1", "2.2%"],
    ]

    assert "--write" not in printed
    assert printed.splitlines()[-3:-1] == [
        f"kept: {clean}", f"taken out: {clean.with_name('clean.taken.jsonl')}",
    ]  # fmt: skip

    kept = [c for c in sources.read(dirty) if c.id not in ("leak", "tie", "ab", "ba", "again")]
    assert [(c.id, c.prompt, c.responses, c.ranks, c.scores) for c in sources.read(clean)] == [
        (c.id, c.prompt, c.responses, c.ranks, c.scores) for c in kept
    ]
    taken = clean.with_name("clean.taken.jsonl").read_text("utf-8").splitlines()
    assert [(row["id"], row["reason"], row["because_of"]) for row in map(json.loads, taken)] == [
        ("leak", "near", "hit"),
        ("tie", "tie", None),
        ("ab", "contradiction", "ba"),
        ("ba", "contradiction", "ab"),
        ("again", "duplicate", "unranked"),
    ]

    again = tmp_path / "new" / "again.jsonl"
    audit.main(Config(str(clean), against=against, write=again, out=out))
    report = json.loads(out.read_text("utf-8"))
    assert report["cleaning"] == dict.fromkeys(counts, 0) | {"read": 41, "kept": 41}
    assert report["counts"]["tie"] == report["counts"]["duplicates"] == 0
    assert report["consistency"]["contradicted_pairs"] == 0
    assert [split["copies"] for split in report["overlap"].values()] == [[], []]
    assert again.read_bytes() == clean.read_bytes()
    assert again.with_name("again.taken.jsonl").read_bytes() == b""


def test_a_file_that_is_read_is_never_written(written, tmp_path):
    source, evaluation = Path(written("source")), Path(written("touched"))
    link, folder = tmp_path / "link.jsonl", tmp_path / "folder"
    link.symlink_to(source)
    folder.mkdir()
    (tmp_path / "e.taken.jsonl").symlink_to(evaluation)
    os.link(source, tmp_path / "second_name.jsonl")
    before = sorted((path, path.read_bytes()) for path in tmp_path.iterdir() if path.is_file())
    for name in ("source", "touched", "link", "e", "second_name"):
        with pytest.raises(OptionError, match="is read: write to another place"):
            path = tmp_path / f"{name}.jsonl"
            audit.main(Config(str(source), against=(str(evaluation),), write=path))
    with pytest.raises(OptionError, match="is read: write to another place"):
        audit.main(Config(str(source), out=source))
    with pytest.raises(OptionError, match=f"lies in {tmp_path}, which is read"):
        audit.main(Config(str(tmp_path), write=folder / "clean.jsonl"))
    assert before == sorted((p, p.read_bytes()) for p in tmp_path.iterdir() if p.is_file())
    assert list(folder.iterdir()) == []


def test_names_that_cannot_be_written_are_refused_before_anything_is_read(tmp_path):
    absent = str(tmp_path / "absent.jsonl")
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "b.taken.jsonl").mkdir()
    for name in ("a", "b"):
        with pytest.raises(DataError, match=f"{name}.*jsonl is a directory"):
            audit.main(Config(absent, write=tmp_path / f"{name}.jsonl"))
    with pytest.raises(OptionError, match=r"--write must be a name in .jsonl, not '.*clean.csv'"):
        audit.main(Config(absent, write=tmp_path / "clean.csv"))
    for out in ("c.jsonl", "c.taken.jsonl"):
        with pytest.raises(OptionError, match="is what --write writes too"):
            audit.main(Config(absent, write=tmp_path / "c.jsonl", out=tmp_path / out))


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
