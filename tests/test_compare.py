"""The comparison of methods on a random base of one small layer: every entry, tuning, both budgets,
resuming, and the page."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex

import pytest
import tyro

from jaxrm.errors import DataError, OptionError, TokenizerError
from jaxrm.methods.ensembles import MEMBERS
from jaxrm.methods.library import COMPARED, METHODS
from jaxrm.methods.method import Method
from jaxrm.models.lora import LoraConfig
from jaxrm.study import command, comparing, keeping, trials
from jaxrm.study.comparing import Config
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
        assert len(set(method.strengths)) in (0, len(comparing.RATES)), name


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
    counts["train"] = "all"
    return Config(**counts | {"base": base, "run_dir": tmp_path, "methods": "bsr"} | options)


def test_from_tuning_to_a_confirmation_and_nothing_twice(monkeypatch, tmp_path, base, capsys):
    monkeypatch.setattr(trials, "COSTLIER", 0.5)
    first = small(tmp_path / "tuned", base, rates=(1e-3, 1e-2))
    comparing.main(first)
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
        comparing.main(first)
    assert (tmp_path / "tuned" / "results.md").read_text() == page

    kept = tmp_path / "tuned" / "choices.json"
    comparing.main(small(tmp_path / "confirmed", base, choices=kept))
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
    comparing.main(Config(report=both, page=copy, methods_page=methods))
    text = copy.read_text()
    assert text.count("## tuned: ") == 2  # one condition, and its trials
    assert text.count("## confirmed: ") == 2  # two budgets, each with three conditions in a table
    assert all(text.count(condition) >= 2 for condition in results)
    gain = results[records[0]["condition"]]["labels"]["bsr"]["gain"]["mean"]
    assert f"| BSR `bsr` | {100 * gain:+.2f} (too few seeds; 2 seeds) |" in methods.read_text()
    comparing.main(Config(report=both[1:], page=copy, against="bsr"))
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
    with pytest.raises(OptionError, match="--methods: magic is not among bt,"):
        comparing.main(Config(methods="bt,magic"))
    with pytest.raises(OptionError, match="--baseline: kwise is not among bt,"):
        comparing.main(Config(baseline="kwise"))
    with pytest.raises(OptionError, match="--rates must be numbers above 0"):
        Config(rates=(1e-3, 0.0))
    with pytest.raises(OptionError, match="--against is for --report"):
        Config(against="bsr")
    with pytest.raises(OptionError, match="go together"):
        Config(data=("x.jsonl",))
    with pytest.raises(OptionError, match="toy world"):
        Config(of="rankings", data=("x.jsonl",), eval=("y.jsonl",))
    with pytest.raises(DataError, match="no choice for bsr"):
        cfg = small(tmp_path, base, choices=tmp_path)
        contest = comparing.contest_of(cfg, comparing.library, base, {})
        contest.measure({"bt": {}}, [0], second_budget=False)
    with pytest.raises(DataError, match="leaves it in its run directory"):
        comparing.main(small(tmp_path, base, choices=tmp_path / "none.json"))
    with pytest.raises(DataError, match="records.jsonl does not exist"):
        comparing.main(Config(report=(tmp_path,)))
    rows = tmp_path / "ranking.jsonl"
    rows.write_text(json.dumps({"prompt": "p", "responses": ["a", "b", "c"], "ranks": [0, 1, 2]}))
    with pytest.raises(DataError, match="not a pair"):
        Files((str(rows),), (str(rows),)).draw("train", 1, 0)


# One's own methods, and one's own base


def mine() -> dict[str, Method]:
    """A method of its own, which has no strength, and one of two strengths."""
    return {"first": METHODS["bsr"], "plain": METHODS["eurus"]}


def test_the_baseline_goes_by_its_name_wherever_methods_stand():
    entered = comparing.entries(Config(), mine)
    assert entered.names == ["bt", "first", "plain"]
    trials_of = entered.trials((1e-4, 1e-3))
    assert trials_of("bt", 1.0) == [Trial(1e-4, None), Trial(1e-3, None)]
    assert trials_of("first", 1e-3) == [Trial(1e-3, s) for s in METHODS["bsr"].strengths]
    assert trials_of("plain", 1e-3) == [Trial(1e-4, None), Trial(1e-3, None)]
    against = comparing.entries(Config(baseline="first", methods="plain"), mine)
    assert against.names == ["first", "plain"]
    # A baseline that has a strength is tuned by its rate, at the middle one.
    assert against.trials((1e-4,))("first", 1.0) == [Trial(1e-4, METHODS["bsr"].default)]
    assert comparing.entries(Config(of="rankings"), comparing.library).names[0] == "shuffled"
    with pytest.raises(OptionError, match="bt: a method of yours is named as another"):
        comparing.known(lambda: {"bt": METHODS["bsr"]})


def test_records_of_own_methods_depend_on_their_file_and_others_do_not(tmp_path, base):
    cfg = small(tmp_path, base, methods="first,bsr")
    contest = comparing.contest_of(cfg, mine, base, {})
    condition = contest.conditions[0]
    keys = {
        name: contest.job(name, Trial(1e-3, None), condition, 0, ()).base
        for name in contest.methods
    }
    assert keys["bt"] == keys["bsr"] == contest.key
    assert keys["first"] == f"{contest.key} {comparing.source_key(mine)}"
    adapted = comparing.contest_of(cfg, mine, base, {"train": "lora", "lora": LoraConfig(rank=2)})
    assert adapted.key.startswith(f"{contest.key} ")
    assert '"rank": 2' in adapted.key


def test_a_function_that_no_process_finds_is_refused(tmp_path):
    with pytest.raises(OptionError, match="define it at the top of its file, or ask for --workers"):
        comparing.main(Config(workers=2, run_dir=tmp_path), lambda: mine())


def write_pairs(path, count):
    turn = {"role": "user", "content": "question"}
    rows = [
        {"prompt": [turn | {"content": f"question {i}"}], "chosen": "good", "rejected": f"bad {i}"}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_base_without_a_template_is_refused_before_any_job(tmp_path):
    base = small_base(tmp_path / "base")
    template = base / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    data = write_pairs(tmp_path / "pairs.jsonl", 40)
    options = {"data": (data,), "eval": (f"{data}?name=test",), "train": "lora", "seeds": 1}
    with pytest.raises(TokenizerError, match="no chat template"):
        comparing.main(small(tmp_path / "run", base, workers=2, **options))
    assert not (tmp_path / "run" / "jobs").exists()
    copy = tmp_path / "template.jinja"
    copy.write_text(text)
    comparing.main(
        small(
            tmp_path / "run2",
            base,
            chat_template=copy,
            rates=(1e-3,),
            lora=LoraConfig(rank=2),
            **options | {"val_items": 30},
        )
    )
    page = (tmp_path / "run2" / "report.html").read_text()
    assert "<figure" not in page  # one seed has no gain with an error
    assert "1 seed: no gain here is told from chance." in page
    assert "comparisons, where 30 were asked for." in page
    assert "python -m experiments.train --method bsr --learning-rate 0.001" in page
    assert "--train lora --lora.rank 2" in page


def test_the_command_that_keeps_a_model_says_all_that_the_comparison_had():
    cfg = Config(
        base="owner/model",
        chat_template="a template.jinja",
        data=("x y.jsonl",),
        eval=("z.jsonl?name=a", "w.jsonl"),
        length=320,
        lora=LoraConfig(rank=4, targets=("query", "up"), rank_stabilised=True),
        run_dir="runs/it",
    )
    python, _, module, *words = shlex.split(
        keeping.command(cfg, "bsr", Trial(3e-4, 0.01), keeping.TRAINER)
    )
    assert (python, module) == ("python", "experiments.train")
    start = command.Config("gemma-2b-it-lora", **command.PRESETS["gemma-2b-it-lora"])
    asked = tyro.cli(command.Config, args=words, default=start)
    assert (asked.method, asked.learning_rate, asked.strength) == ("bsr", 3e-4, 0.01)
    assert (asked.data, asked.eval) == (cfg.data, cfg.eval)
    assert (str(asked.base), str(asked.chat_template)) == ("owner/model", "a template.jinja")
    assert (asked.train, asked.lora) == ("lora", cfg.lora)
    assert asked.head == trials.HeadConfig()
    assert (asked.epochs, asked.rows, asked.row_length, asked.max_length) == (1, 8, 320, 320)
    assert (asked.dtype, asked.remat) == ("float32", "none")
    assert str(asked.run_dir) == "runs/it/models/bsr"


def test_the_plan_counts_every_job(tmp_path, base):
    contest = comparing.contest_of(
        small(tmp_path, base, rates=(1e-3,)), comparing.library, base, {}
    )
    assert contest.plan(2, 5, 1e-3, second_budget=False).splitlines() == [
        "tune bt: 1 trials x 2 seeds = 2",
        "tune the others: 1 methods, 3 trials x 2 seeds = 6",
        "measure: 2 methods x 5 seeds x 1 conditions = 10",
        "18 jobs, each one method's training and scoring",
    ]
    assert (
        contest.plan(0, 5, 1e-3, second_budget=True).splitlines()[-1].startswith("at least 10 jobs")
    )
