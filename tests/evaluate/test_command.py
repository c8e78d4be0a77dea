"""The commands: what an evaluation leaves, how it goes on, what it refuses, and comparing two."""

import json
import re
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from jaxrm import toy
from jaxrm.data import tokenizer as tokenizers
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, JaxrmError, ModelFileError, OptionError, RunDirError
from jaxrm.evaluate import __main__ as command
from jaxrm.evaluate import compare
from jaxrm.evaluate.__main__ import Config
from jaxrm.huggingface import hub, mixture
from jaxrm.huggingface.mixture import Member
from jaxrm.models.heads import HeadConfig
from tests.clock import set_today
from tests.huggingface import hub_standin


def row(prompt, chosen, rejected, **more):
    message = {"role": "user", "content": prompt}
    return {"prompt": [message], "chosen": chosen, "rejected": rejected, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def mine(tmp_path):
    """Of the longer answer's strict score on it: right, wrong, tied, right; .5 of 4."""
    return write(
        tmp_path / "mine.jsonl",
        [
            row("1", "long", "no", subset="a"),
            row("2", "no", "long", subset="a"),
            row("3", "same", "size", subset="b"),
            row("4", "long", "", subset="b"),
        ],
    )


def config(tmp_path, **options):
    return Config(out=tmp_path / "out", **{"longer": True, **options})


def test_what_an_evaluation_leaves(tmp_path, mine, capsys):
    command.main(config(tmp_path, sets=(str(mine),)))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["scorer"] == {"rule": "the longer answer"}
    found = results["benchmarks"]["mine"]
    assert (found["comparisons"], found["responses"]) == (4, 8)
    assert (found["empty"], found["ties"], found["not_a_number"]) == (1, 1, 0)
    strict, half = (found["rules"][name]["figures"] for name in ("strict", "half for ties"))
    assert {name: figure["value"] for name, figure in strict.items()} == {
        "overall": 0.5,
        "a": 0.5,
        "b": 0.5,
    }
    assert half["overall"]["value"] == 0.625
    lines = (tmp_path / "out" / "mine" / "items.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {
        "id": "mine/3",
        "subset": "b",
        "ranks": [0, 1],
        "scores": [4.0, 4.0],
    }
    shown = capsys.readouterr().out
    # Of four prompts there is no interval, and the page says so.
    assert re.search(r"mine +overall +50\.0 +— +4", shown)
    assert "Intervals take 5 prompts or more" in shown
    assert "1 with an empty answer" in shown
    html = (tmp_path / "out" / "report.html").read_text()
    for text in ("Headlines", "the longer answer", "half for ties", "1 with equal scores", "<svg"):
        assert text in html
    assert "Intervals take 5 prompts or more" in html


def test_it_goes_on_where_it_was_stopped(tmp_path, mine, monkeypatch):
    other = write(tmp_path / "other.jsonl", [row("5", "long", "no"), row("6", "long", "no")])
    command.main(config(tmp_path, sets=(str(mine),)))
    asked = []

    def counting(comparisons):
        asked.extend(c.id for c in comparisons)
        return longer(comparisons)

    longer = command.scorers.longer
    monkeypatch.setattr(command.scorers, "longer", counting)
    command.main(config(tmp_path, sets=(str(mine), str(other))))
    assert asked == ["other/1", "other/2"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    overall = {
        name: found["rules"]["strict"]["figures"]["overall"]["value"]
        for name, found in results["benchmarks"].items()
    }
    assert overall == {"mine": 0.5, "other": 1.0}


def test_scores_of_something_else_are_not_taken_for_these(tmp_path, mine):
    options = config(tmp_path, sets=(str(mine),))
    command.main(options)
    train = str(write(tmp_path / "train.jsonl", [row("q", "good", "bad")] * 3))
    with pytest.raises(RunDirError, match=r"mine holds other scores: .*'the longer answer'"):
        command.main(config(tmp_path, sets=(str(mine),), longer=False, words=train))
    write(mine, [row("1", "long", "other", subset="a")])
    with pytest.raises(RunDirError, match=r"other scores: data is"):
        command.main(options)
    (tmp_path / "out" / "mine" / "about.json").write_text("{")
    with pytest.raises(RunDirError, match="no scores that can be read"):
        command.main(options)


def test_scores_that_are_no_numbers_never_win_and_are_counted(tmp_path, mine):
    scores = [[1, None], [None, 0], [2, 1], [1, 0]]
    recorded = [{"id": f"mine/{i}", "rewards": given} for i, given in enumerate(scores, start=1)]
    recorded = write(tmp_path / "scores.jsonl", recorded)
    command.main(config(tmp_path, sets=(str(mine),), longer=False, recorded=recorded))
    found = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]["mine"]
    assert found["not_a_number"] == 2
    assert found["rules"]["strict"]["figures"]["overall"]["value"] == 0.5
    lines = (tmp_path / "out" / "mine" / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["scores"] for line in lines] == scores
    again = command.record.read(
        tmp_path / "out" / "mine",
        json.loads((tmp_path / "out" / "mine" / "about.json").read_text()),
    )
    np.testing.assert_equal(again[0], [1, np.nan])


def test_missing_rows_are_reported_and_not_averaged_over(tmp_path, capsys):
    rows = [row(f"{i}", "long", "no", subset=name) for i, name in enumerate(["natural"] * 3)]
    path = write(tmp_path / "llmbar.jsonl", rows)
    command.main(config(tmp_path, benchmarks=("llmbar",), data=path))
    found = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]["llmbar"]
    assert found["missing"]["natural"] == {"found": 3, "expected": 100}
    verdict = next(iter(found["rules"].values()))
    assert next(iter(verdict["figures"].values()))["value"] is None
    assert verdict["groups"]["natural"]["value"] == 1
    shown = capsys.readouterr().out
    assert "natural 3 of 100" in shown
    assert re.search(r"llmbar +\w+ +— +—", shown)
    # What the table withholds, no chart shows.
    assert "<svg" not in (tmp_path / "out" / "report.html").read_text()


def test_missing_rows_are_said_before_anything_is_scored(tmp_path, monkeypatch, caplog):
    rows = [row("q", "long", "no", subset="natural")] * 100
    path = write(tmp_path / "llmbar.jsonl", rows)

    def scorer(comparisons):
        (record,) = caplog.records
        message = record.getMessage()
        assert message.startswith("llmbar: rows differ from the published ones (adversarial_neigh")
        assert "adversarial_manual 0 of 46" in message
        assert "natural" not in message
        assert "name their file under --sets" in message
        return [np.array([1.0, 0.0])] * len(comparisons)

    monkeypatch.setattr(command.scorers, "longer", scorer)
    with caplog.at_level("WARNING", "jaxrm"):
        command.main(config(tmp_path, benchmarks=("llmbar",), data=path))
    html = (tmp_path / "out" / "report.html").read_text()
    # The subset that is whole has its figure and its bar.
    assert "natural  (n = 100)" in html


def test_the_last_lines_say_where_to_look_and_what_to_do_next(tmp_path, mine, capsys):
    command.main(config(tmp_path, sets=(str(mine),)))
    page, after = capsys.readouterr().out.splitlines()[-2:]
    assert page == f"every figure: {tmp_path / 'out' / 'report.html'}"
    assert after.startswith("against another: ")
    assert after.endswith(f" -m jaxrm.evaluate.compare {tmp_path / 'out'} OTHER")


def test_items_in_parquet_and_read_again(tmp_path, mine):
    options = config(tmp_path, sets=(str(mine),), items="parquet")
    command.main(options)
    first = (tmp_path / "out" / "results.json").read_text()
    table = pyarrow.parquet.read_table(tmp_path / "out" / "mine" / "items.parquet")
    assert table.column("scores").to_pylist() == [[4, 2], [2, 4], [4, 4], [4, 0]]
    command.main(options)
    assert (tmp_path / "out" / "results.json").read_text() == first


def test_contrast_instructions_out_of_any_pairs(tmp_path):
    questions = ("name the capital of France", "name the capital of Spain", "sing")
    rows = [row(q, f"answer {i}", "none") for i, q in enumerate(questions)]
    source = str(write(tmp_path / "mine.jsonl", rows))
    command.main(config(tmp_path, sets=(source,), contrast=(source,)))
    benchmarks = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]
    found = benchmarks["contrast-mine"]
    assert found["comparisons"] == 4
    # All answers are of one length, and length hears no prompt: all tied.
    values = {name: of["value"] for name, of in found["rules"]["strict"]["figures"].items()}
    assert values == {"C_res": 0, "C_ins": 0}
    gains = compare.headlines(tmp_path / "out", tmp_path / "out")
    assert {name: figure for name, (figure, _) in gains.items()} == {
        "mine": "overall",
        "contrast-mine": "C_res",
    }


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({}, OptionError, "name --benchmarks .rewardbench, .* --sets or"),
        ({"benchmarks": ("rewardbank",)}, OptionError, "'rewardbank' is not one of rewardbench,"),
        ({"sets": ("gone.jsonl",)}, DataError, "gone.jsonl: does not exist"),
        ({"sets": ("{mine}", "{mine}")}, OptionError, "two benchmarks are named mine"),
        ({"sets": ("{mine}",), "longer": False}, OptionError, "name one of .*, not none"),
        ({"sets": ("{mine}",), "words": "x"}, OptionError, "not --words and --longer"),
        ({"sets": ("{mine}",), "longer": False, "model": "{tmp}"}, JaxrmError, "no tokenizer"),
    ],
)
def test_what_is_refused_before_anything_is_scored(tmp_path, mine, options, error, problem):
    def filled(value):
        if isinstance(value, tuple):
            return tuple(part.format(mine=mine) for part in value)
        return tmp_path if value == "{tmp}" else value

    options = {name: filled(value) for name, value in options.items()}
    with pytest.raises(error, match=problem):
        command.main(config(tmp_path, **options))
    assert not list((tmp_path / "out").glob("*/*"))


def test_words_without_an_order_name_their_file(tmp_path, mine):
    train = tmp_path / "unranked.jsonl"
    train.write_text('{"prompt": "Hi?", "responses": ["a b", "c"]}\n')
    with pytest.raises(DataError, match=f"^--words {train}: no comparison prefers any response"):
        command.main(config(tmp_path, sets=(str(mine),), longer=False, words=str(train)))


@pytest.mark.parametrize("option", ["rows", "row_length"])
def test_options_out_of_range(tmp_path, option):
    with pytest.raises(OptionError, match=f"--{option.replace('_', '-')} must be at least 1"):
        config(tmp_path, **{option: 0})


def test_a_model_is_evaluated_from_its_directory(tmp_path, mine):
    base, place = toy.shipped_base(), tmp_path / "model"
    hub.save(hub.load(base, HeadConfig("linear")), place, load_tokenizer(base))
    options = {"sets": (str(mine),), "longer": False, "row_length": 64, "rows": 2}
    command.main(config(tmp_path, **options, model=place))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["scorer"]["weights"] == hub.fingerprint(place)
    rows = (tmp_path / "out" / "mine" / "items.jsonl").read_text().splitlines()
    assert all(len(json.loads(line)["scores"]) == 2 for line in rows)
    with pytest.raises(ModelFileError, match="head"):
        command.main(Config(out=tmp_path / "headless", **options, model=base))


def test_a_model_of_the_hub_is_evaluated_by_its_name_and_stays_what_it_was(
    tmp_path, mine, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    base, place = toy.shipped_base(), tmp_path / "model"
    hub.save(hub.load(base, HeadConfig("linear")), place, load_tokenizer(base))
    with hub_standin.serving(monkeypatch, tmp_path / "home") as server:
        repo = server.repo("owner/grm", hub_standin.files_of(place))
        first = repo.refs["main"]
        options = {"longer": False, "row_length": 64, "rows": 2, "model": Path("owner/grm")}
        command.main(config(tmp_path, sets=(str(mine),), **options))
        other = hub.load(base, HeadConfig("linear"), seed=1)
        hub.save(other, place, load_tokenizer(base))
        repo.commit(hub_standin.files_of(place))
        more = write(tmp_path / "more.jsonl", [row("5", "long", "no")])
        command.main(config(tmp_path, sets=(str(mine), str(more)), **options))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["scorer"]["model"] == "owner/grm"
    assert results["scorer"]["revisions"] == {"owner/grm": first}
    snapshot = tmp_path / "home" / "hub" / "models--owner--grm" / "snapshots" / first
    assert results["scorer"]["weights"] == hub.fingerprint(snapshot) != hub.fingerprint(place)
    assert results["benchmarks"].keys() == {"mine", "more"}


def test_a_mixture_is_evaluated_like_a_model(tmp_path, mine):
    base, place = toy.shipped_base(), tmp_path / "mixture"
    model = hub.load(base, HeadConfig("linear"))
    mixture.save(place, [(model, Member("one", weight=-2.0))], load_tokenizer(base))
    hub.save(model, tmp_path / "model", load_tokenizer(base))
    scores = []
    for source in (place, tmp_path / "model"):
        options = {"sets": (str(mine),), "row_length": 64, "rows": 2, "model": source}
        command.main(Config(out=tmp_path / f"out_{source.name}", **options))
        lines = (tmp_path / f"out_{source.name}" / "mine" / "items.jsonl").read_text().splitlines()
        scores.append([json.loads(line)["scores"] for line in lines])
    np.testing.assert_allclose(scores[0], -2 * np.array(scores[1]), rtol=1e-6)
    results = json.loads((tmp_path / "out_mixture" / "results.json").read_text())
    assert results["scorer"]["weights"] == hub.fingerprint(place)


def test_scores_of_another_day_are_not_taken_for_these(tmp_path, mine, monkeypatch):
    base, place = toy.shipped_base(), tmp_path / "model"
    tokenizer = load_tokenizer(base)
    tokenizer.hf.chat_template += "{{ strftime_now('%d %B') }}"
    hub.save(hub.load(base, HeadConfig("linear")), place, tokenizer)
    options = config(tmp_path, sets=(str(mine),), longer=False, row_length=64, model=place)
    set_today(monkeypatch, date(2026, 11, 30), tokenizers)
    command.main(options)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["scorer"]["day"] == "2026-11-30"
    set_today(monkeypatch, date(2026, 12, 1), tokenizers)
    with pytest.raises(RunDirError, match="day is '2026-11-30' there and '2026-12-01' here"):
        command.main(options)


def test_two_evaluations_are_compared_prompt_by_prompt(tmp_path, capsys):
    rows = [row(f"{i}", "good" if i % 4 else "good " * 3, "poor thing") for i in range(80)]
    of = {"sets": (str(write(tmp_path / "mine.jsonl", rows)),)}
    good = [{"id": f"mine/{i + 1}", "rewards": [1, 0]} for i in range(80)]
    recorded = write(tmp_path / "scores.jsonl", good)
    command.main(Config(out=tmp_path / "a", **of, recorded=recorded))
    command.main(Config(out=tmp_path / "b", **of, longer=True))
    capsys.readouterr()
    compare.main(compare.Config(tmp_path / "a", tmp_path / "b"))
    shown = capsys.readouterr().out
    assert re.search(r"mine +overall +\+75\.0 +\+\d\d\.\d to \+\d\d\.\d +0\.000 +0\.000", shown)
    (figure, gain) = compare.headlines(tmp_path / "b", tmp_path / "a")["mine"]
    assert (figure, gain.mean) == ("overall", -0.75)
    # A quarter won: sqrt(.75 * .25 / 80) is the error, and 2.8 of them are found.
    assert compare.detectable(gain) == pytest.approx(2.8 * 0.0484, rel=0.08)
    with pytest.raises(RunDirError, match="no results of an evaluation"):
        compare.headlines(tmp_path / "a", tmp_path)
    compare.main(compare.Config(tmp_path / "a", tmp_path / "a"))
    shown = capsys.readouterr().out
    # 80 prompts that show no difference may hide some that do: 1.99 times 2 of 84.
    assert re.search(r"mine +overall +\+0\.0 +-4\.7 to \+4\.7 +1\.000 +1\.000 +6\.8", shown)


def test_of_few_prompts_no_difference_is_told(tmp_path, mine, capsys):
    for name in "ab":
        command.main(Config(out=tmp_path / name, sets=(str(mine),), longer=True))
    capsys.readouterr()
    compare.main(compare.Config(tmp_path / "a", tmp_path / "b"))
    shown = capsys.readouterr().out
    assert re.search(r"mine +overall +\+0\.0 +— +— +— +—", shown)
    assert "Intervals take 5 prompts or more" in shown


def test_evaluations_of_other_rows_are_not_compared(tmp_path):
    for name, prompts in (("a", "12"), ("b", "13")):
        path = write(tmp_path / "mine.jsonl", [row(prompt, "x", "y") for prompt in prompts])
        command.main(Config(out=tmp_path / name, sets=(str(path),), longer=True))
    with pytest.raises(RunDirError, match="the same comparisons"):
        compare.headlines(tmp_path / "a", tmp_path / "b")


def test_what_cannot_be_compared_is_named_with_the_reason(tmp_path, mine, caplog):
    a, b, c = (tmp_path / name for name in "abc")
    rows = [row(f"{i}", "long", "no", subset="natural") for i in range(6)]
    part = write(tmp_path / "llmbar.jsonl", rows)
    for out in (a, b):
        command.main(Config(out=out, benchmarks=("llmbar",), data=part, longer=True))
    with pytest.raises(RunDirError) as caught:
        compare.headlines(a, b)
    assert str(caught.value).splitlines()[0] == f"{a} and {b} cannot be compared"
    for words in (f"in {a} natural 6 of 100", f"; in {b} natural 6 of 100", "under --sets"):
        assert words in str(caught.value)

    write(part, rows[1:])
    command.main(Config(out=c, benchmarks=("llmbar",), sets=(str(mine),), data=part, longer=True))
    with pytest.raises(RunDirError, match="did not score the same") as caught:
        compare.headlines(a, c)
    for words in (f"in {a} natural 6 of 100", f"; in {c} natural 5 of 100",
                  f"mine: {a} has no scores of it"):  # fmt: skip
        assert words in str(caught.value)

    command.main(Config(out=tmp_path / "d", sets=(str(mine),), longer=True))
    with caplog.at_level("WARNING", "jaxrm.evaluate.compare"):
        assert list(compare.headlines(tmp_path / "d", c)) == ["mine"]
    words = f"llmbar is not compared: {tmp_path / 'd'} has no scores of it: evaluate it there too"
    assert caplog.records[-1].getMessage() == words


def test_a_set_may_have_the_name_of_a_benchmark(tmp_path):
    rows = [row(f"{i}", "long", "no", subset="natural") for i in range(6)]
    path = write(tmp_path / "llmbar.jsonl", rows)
    for name in "ab":
        command.main(Config(out=tmp_path / name, sets=(str(path),), longer=True))
    (figure, gain) = compare.headlines(tmp_path / "a", tmp_path / "b")["llmbar"]
    assert (figure, gain.mean) == ("overall", 0)
    command.main(Config(out=tmp_path / "c", benchmarks=("llmbar",), data=path, longer=True))
    with pytest.raises(RunDirError, match="two things by that name, .*llmbar.jsonl.*LLMBar"):
        compare.headlines(tmp_path / "a", tmp_path / "c")
