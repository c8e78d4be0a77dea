"""The comparison of methods on a random base of one small layer: every entry, tuning, both budgets,
resuming, and the page."""

from __future__ import annotations

import dataclasses
import functools
import json

import pytest

from experiments import compare
from experiments.compare import Config
from jaxrm.errors import DataError, OptionError
from jaxrm.methods.ensembles import MEMBERS
from jaxrm.methods.library import COMPARED
from jaxrm.study import trials
from jaxrm.study.draws import Condition, Files, Toy
from jaxrm.study.records import Trial
from jaxrm.study.trials import Job
from tests.methods.small_base import small_base

PAIRS, ITEMS = 12, 8
MIXED = Toy(label_noise=0.25, cue_agreement=0.7)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def job(method="bt", strength=None, budget="labels", data=MIXED):
    splits = (("ood_prompt", ITEMS), ("val", ITEMS))
    trial = Trial(1e-2, strength)
    return Job(method, trial, Condition(data, PAIRS), 0, budget, "key", splits)


def test_every_method_has_as_many_trials_as_the_baseline_has_rates():
    for name, method in COMPARED.items():
        assert len(set(method.strengths)) in (0, len(compare.RATES)), name


def test_a_second_budget_is_no_more_work_than_the_baseline_s(base):
    asked = dataclasses.replace(job("warm"), condition=Condition(MIXED, 200))
    whole, bounded = (
        trials.run(dataclasses.replace(asked, budget=budget), base)
        for budget in ("labels", "flops")
    )
    assert whole["cost"] == pytest.approx(MEMBERS)
    assert bounded["cost"] == pytest.approx(bounded["steps"] / whole["steps"] * MEMBERS)
    # Each member's steps are rounded.
    assert abs(bounded["steps"] - whole["steps"] / MEMBERS) <= MEMBERS / 2


# The stages


def small(tmp_path, base, **options):
    counts = {"pairs": PAIRS, "items": ITEMS, "val_items": ITEMS, "seeds": 2, "workers": 1}
    return Config(**counts | {"base": base, "run_dir": tmp_path, "methods": "bsr"} | options)


def test_from_tuning_to_a_confirmation_and_nothing_twice(monkeypatch, tmp_path, base, capsys):
    monkeypatch.setattr(compare, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(trials, "COSTLIER", 0.5)
    first = small(tmp_path / "tuned", base)
    compare.main(first)
    choices = json.loads((tmp_path / "tuned" / "choices.json").read_text())
    assert list(choices) == ["bt", "bsr"]
    assert {t["learning_rate"] for t in choices["bsr"]["trials"]} == {
        choices["bt"]["learning_rate"]
    }
    page = (tmp_path / "tuned" / "results.md").read_text()
    assert "| **bt** |" in page
    assert "too few seeds" in page
    again = functools.partial(pytest.fail, "run again")
    with monkeypatch.context() as patched:
        patched.setattr(trials, "run", again)
        compare.main(first)
    assert (tmp_path / "tuned" / "results.md").read_text() == page

    kept = tmp_path / "tuned" / "choices.json"
    compare.main(small(tmp_path / "confirmed", base, choices=kept))
    lines = (tmp_path / "confirmed" / "records.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    # 2 methods x 2 seeds x 3 conditions x 2 budgets
    assert len(records) == 24
    assert {record["seed"] for record in records} == {300, 301}
    assert len({record["condition"] for record in records}) == 3
    results = json.loads((tmp_path / "confirmed" / "results.json").read_text())
    assert results[records[0]["condition"]]["labels"]["bsr"]["splits"]["ood_prompt"]["n"] == 2

    copy, methods = tmp_path / "copy.md", tmp_path / "methods.md"
    methods.write_text("| method | measured |\n|---|---|\n| BSR `bsr` | |\n| BT `bt` | |\n")
    both = (tmp_path / "tuned", tmp_path / "confirmed")
    compare.main(Config(report=both, page=copy, methods_page=methods))
    text = copy.read_text()
    assert text.count("## tuned: ") == 2  # one condition, and its trials
    assert text.count("## confirmed: ") == 2  # two budgets, each with three conditions in a table
    assert all(text.count(condition) >= 2 for condition in results)
    gain = results[records[0]["condition"]]["labels"]["bsr"]["gain"]["mean"]
    assert f"| BSR `bsr` | {100 * gain:+.2f} (too few seeds; 2 seeds) |" in methods.read_text()
    compare.main(Config(report=both[1:], page=copy, against="bsr"))
    assert f"{-100 * gain:+.2f}" in copy.read_text()


def test_files_are_split_by_prompt_and_measured_whole(tmp_path, base):
    def write(name, count, words=3):
        rows = [
            {"prompt": f"question {i}", "chosen": "good " * words, "rejected": f"bad {i}"}
            for i in range(count)
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    data = Files((write("train.jsonl", 60),), (write("test.jsonl", 5, words=300),))
    assert data.splits == ("test", "val")
    drawn = {split: data.draw(split, 100, seed=1) for split in ("train", "val")}
    prompts = [{c.prompt for c in drawn[split]} for split in ("train", "val")]
    assert len(prompts[0] | prompts[1]) == 60
    assert not prompts[0] & prompts[1]
    assert data.draw("val", 100, seed=2) != drawn["val"]
    assert len(data.draw("test", 3, seed=1)) == 3
    record = trials.run(dataclasses.replace(job(data=data), splits=(("test", 5), ("val", 5))), base)
    assert record["splits"]["test"]["n"] == 5  # each longer than a row
    long = dataclasses.replace(data, train=(*data.train, *data.measured))
    assert trials.run(
        dataclasses.replace(job(data=long), condition=Condition(long, 1000), splits=(("val", 5),)),
        base,
    )["dropped"] in range(1, 6)


def test_what_cannot_be_compared_is_refused(tmp_path, base):
    with pytest.raises(OptionError, match="magic is not among bt,"):
        Config(methods="bt,magic")
    with pytest.raises(OptionError, match="--against is for --report"):
        Config(against="bsr")
    with pytest.raises(OptionError, match="go together"):
        Config(data=("x.jsonl",))
    with pytest.raises(OptionError, match="toy world"):
        Config(of="rankings", data=("x.jsonl",), eval=("y.jsonl",))
    with pytest.raises(DataError, match="no choice for bsr"):
        contest = compare.contest_of(small(tmp_path, base, choices=tmp_path), base)
        contest.measure({"bt": {}}, [0], second_budget=False)
    with pytest.raises(DataError, match="leaves it in its run directory"):
        compare.main(small(tmp_path, base, choices=tmp_path / "none.json"))
    with pytest.raises(DataError, match="records.jsonl does not exist"):
        compare.main(Config(report=(tmp_path,)))
    rows = tmp_path / "ranking.jsonl"
    rows.write_text(json.dumps({"prompt": "p", "responses": ["a", "b", "c"], "ranks": [0, 1, 2]}))
    with pytest.raises(DataError, match="not a pair"):
        Files((str(rows),), (str(rows),)).draw("train", 1, 0)
