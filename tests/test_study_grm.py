"""The GRM study on a random base of one small layer, its page, and its verdict by hand."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import study_grm
from experiments.study_grm import CONTROLS, MAIN, METHODS, RATES, STRENGTHS, VARIANTS, Config
from jaxrm import toy
from jaxrm.data import packing
from jaxrm.errors import DataError, OptionError
from jaxrm.methods import bench as benches
from jaxrm.methods.bench import Bench
from jaxrm.methods.task import InMemory, Task
from jaxrm.study import contest, draws
from jaxrm.study.draws import Condition, Files, Toy
from jaxrm.study.records import Trial
from jaxrm.study.trials import Contest, Job
from jaxrm.train.loop import Point
from tests.methods.small_base import small_base

PAIRS, ITEMS = 30, 12
NOISY = Condition(Toy(0.25, 0.7), PAIRS)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def job(method="bt", rate=1e-2, strength=None, **other):
    fields = {"condition": NOISY, "seed": 0, "budget": "labels", "base": "key", "validation": 4}
    fields["splits"] = (("val", ITEMS), ("id", ITEMS))
    return Job(method, Trial(rate, strength), **fields | other)


@pytest.fixture(scope="module")
def record(base):
    return study_grm.run(job(), base)


# A run


def test_a_record_says_what_was_run_and_found(record, base):
    assert {"pairs": PAIRS, "label_noise": 0.25, "epochs": 1}.items() <= record["condition"].items()
    assert record["head"]["kind"] == "linear"
    assert [record["splits"][split]["n"] for split in ("val", "id")] == [ITEMS, ITEMS]
    assert "language" not in record["splits"]["val"]
    assert 0 <= record["splits"]["id"]["language"] <= 1
    assert list(record["drift"]) == ["id"]
    assert record["drift"]["id"] > 1e-6
    assert record["steps"] > 0
    trees = Bench(base).trees(NOISY.data.draw("train", PAIRS, 0))
    assert record["tokens"] == sum(map(packing.tree_length, trees))
    json.dumps(record)


def test_jobs_leave_what_they_share_as_it_was_and_share_a_compilation(record, base):
    before = benches._trainer.cache_info().misses
    again = study_grm.run(job(), base)
    assert again | {"seconds": 0} == record | {"seconds": 0}
    longer = Condition(Toy(0.0, 0.7), 2 * PAIRS, epochs=2)
    other = study_grm.run(job(rate=1e-4, condition=longer, seed=1), base)
    assert other["steps"] > record["steps"]
    assert benches._trainer.cache_info().misses == before


def test_a_frozen_trunk_stays_and_its_head_moves(base):
    frozen = study_grm.run(job("frozen", rate=0.1), base)
    still = study_grm.run(job("frozen", rate=1e-9), base)
    assert frozen["drift"]["id"] == pytest.approx(0.0, abs=1e-7)
    assert frozen["splits"]["id"]["loss"] != still["splits"]["id"]["loss"]


def test_replay_has_text_of_the_lexicon_that_the_base_has_read(base, monkeypatch):
    lexicons = []
    text = toy.World.pretraining_text

    def watched(world, n):
        lexicons.append(world.lexicon)
        return text(world, n)

    monkeypatch.setattr(toy.World, "pretraining_text", watched)
    monkeypatch.setattr(draws, "TEXTS", 3)
    for lexicon in ("dev", "report"):
        condition = Condition(Toy(0.25, 0.7, lexicon=lexicon), 4)
        study_grm.run(job("replay", strength=0.3, condition=condition), base)
    study_grm.run(job(), base)
    assert lexicons == ["dev", "report"]
    assert "dev lexicon" in str(Toy(0.25, 0.7, lexicon="dev"))
    with pytest.raises(DataError, match="the toy world alone"):
        Files(("pairs.jsonl",), ("test.jsonl",)).text()


def test_early_stopping_keeps_what_was_first_best_on_val(monkeypatch, base):
    bench = Bench(base)
    packed = bench.pack(NOISY.data.draw("val", 4, 0))

    def points(bench, method, trees, *, count, **options):
        assert count == study_grm.LOOKS
        params = jax.device_put(bench.start(0))
        for step, weight in enumerate((1.0, 2.0, 3.0), 1):
            head = {"weight": jnp.full_like(params["reward_head"]["weight"], weight)}
            yield Point(step, 3, params | {"reward_head": head}, float(step), 10 * step)
            head["weight"].delete()  # as the next step takes its memory

    values = iter((0.5, 0.7, 0.7))
    monkeypatch.setattr(Bench, "points", points)
    monkeypatch.setattr(study_grm, "macro_accuracy", lambda rewards, comparisons: next(values))
    task = Task(bench, InMemory(packed), packed, 1e-3, None, 1, 0)
    [model] = task.train(METHODS["bt_early"]).models
    assert (model.fitted.steps, model.fitted.tokens, model.fitted.seconds) == (2, 30, 3.0)
    np.testing.assert_array_equal(model.fitted.params["reward_head"]["weight"], 2.0)


# The study


def test_every_method_has_four_trials(monkeypatch):
    for method, rate in itertools.product((*MAIN, "frozen"), RATES):
        assert len(set(study_grm.trials_of(method, rate))) == 4, method
    monkeypatch.setattr(study_grm, "RATES", (1.0, 2.0, 3.0, 4.0))

    def rates(method, rate):
        return {trial.learning_rate for trial in study_grm.trials_of(method, rate)}

    assert rates("lp_ft", 3.0) == {1.0, 2.0, 3.0, 4.0}
    assert rates("l2", 3.0) == {3.0}
    assert rates("grm_dpo", 3.0) == {2.0, 3.0}
    assert rates("grm_dpo", 1.0) == {1.0, 2.0}


def test_the_confirmation_runs_each_job_once_the_main_part_first(monkeypatch, base):
    asked = []

    def count(contest, jobs, title):
        asked.extend(jobs)
        return [{"job": job} for job in jobs]

    monkeypatch.setattr(Contest, "records", count)
    choices = json.loads(Config(confirm=True).choices.read_text())
    records = study_grm.confirm(Config(confirm=True, base=base), choices)
    # 12 seeds x 3 conditions x 8 methods; 3 x 8 x 2 sizes less the 3 x 3 x 2 that are main's;
    # 3 x 4 strengths less main's 3; 3 x 2 x 2 heads; 3 frozen; 2 x 2 of four epochs.
    counts = {"main": 288, "sizes": 30, "strengths": 9, "heads": 12, "frozen": 3, "curves": 4}
    parts = [record["part"] for record in records]
    assert {part: parts.count(part) for part in counts} == counts
    assert parts[:288] == ["main"] * 288
    assert len(set(asked)) == len(asked) == 346
    assert [job.seed for job in asked[:288]] == [100 + i // 24 for i in range(288)]
    assert {job.condition.data.lexicon for job in asked} == {"report"}
    assert {job.head.layers for job in asked if job.head.kind == "mlp"} == {1, 2}
    strengths = {job.trial.strength for job in asked if job.method == "grm_sft"}
    assert strengths == set(STRENGTHS["grm_sft"])


def test_from_a_screen_to_a_page_and_nothing_twice(monkeypatch, tmp_path, base):
    splits = set()
    comparisons = toy.World.comparisons

    def watched(world, split, *args):
        splits.add((world.lexicon, split))
        return comparisons(world, split, *args)

    monkeypatch.setattr(toy.World, "comparisons", watched)
    monkeypatch.setattr(study_grm, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(study_grm, "HEAD_RATES", (1e-2,))
    monkeypatch.setattr(study_grm, "MAIN", ("bt",))
    small = {"pairs": PAIRS, "items": 2 * ITEMS, "seeds": 2, "workers": 1, "base": base}
    screened, confirmed = tmp_path / "screen", tmp_path / "confirmed"
    study_grm.main(Config(screened, screen=True, **small))
    assert splits == {("dev", "train"), ("dev", "val")}  # and no test split
    choices = json.loads((screened / "choices.json").read_text())
    assert set(choices) == {"bt", "frozen"}
    assert choices["bt"]["learning_rate"] in (1e-3, 1e-2)

    monkeypatch.setattr(study_grm, "verdicts", lambda records: "## The claim")
    asked = {"choices": screened / "choices.json", "parts": ("main", "frozen")}
    confirm = Config(confirmed, confirm=True, **asked, **small)
    study_grm.main(confirm)
    page = (confirmed / "results.md").read_bytes()
    assert b"ood_prompt" in page
    assert b"## A frozen trunk" in page
    monkeypatch.setattr(study_grm, "run", functools.partial(pytest.fail, "run again"))
    study_grm.main(confirm)
    assert (confirmed / "results.md").read_bytes() == page

    records, copy = confirmed / "records.jsonl", tmp_path / "copy" / "results.md"
    again = Config(report=records, choices=screened / "choices.json", page=copy)
    study_grm.main(again)
    assert copy.read_bytes() == page
    records.unlink()
    with pytest.raises(DataError, match="does not exist"):
        study_grm.main(again)


def test_what_cannot_be_run_is_refused(tmp_path):
    for wrong in ({}, {"screen": True, "confirm": True}):
        with pytest.raises(OptionError, match="one of the three"):
            Config(**wrong)
    with pytest.raises(OptionError, match="--parts"):
        Config(confirm=True, parts=("magic",))
    with pytest.raises(OptionError, match="--base must be given with --screen"):
        Config(screen=True)
    with pytest.raises(DataError, match="does not exist"):
        study_grm.main(Config(tmp_path, confirm=True, choices=tmp_path / "none.json"))


# The page

SEEDS = range(100, 106)
STEPS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
"""Gains of six seeds. Their mean is .035; all have one sign, so that p = 2 / 2^6 = .03125, and the
95 % interval goes from the least to the largest."""
CONDITION = {"pairs": 2000, "label_noise": 0.25, "cue_agreement": 0.7, "epochs": 1}


def page_record(method, seed, ood=0.8, part="main", **other):
    def split(macro):
        return {"macro": macro, "accuracy": 0.5, "n": 40, "loss": 0.6, "language": None}

    return {
        "method": method,
        "learning_rate": 1e-3,
        "strength": None,
        "condition": CONDITION,
        "seed": seed,
        "head": {"kind": "linear", "layers": 1},
        "part": part,
        "splits": {name: split(0.7) for name in Toy.splits[1:]}
        | {"ood_prompt": split(ood) | {"language": 0.6}},
        "drift": {"ood_prompt": 0.125},
        "steps": 40,
        "seconds": 36.0,
        "tokens": 250_000,
    } | other


def main_part(gains, **other):
    """Every method at one condition; `gains` over .8 by method and seed, 0 where not named."""
    return [
        page_record(method, seed, 0.8 + gain, **other)
        for method in MAIN
        for seed, gain in zip(SEEDS, gains.get(method, [0.0] * len(SEEDS)), strict=True)
    ]


def verdicts(*parts):
    return study_grm.verdicts([study_grm.as_of_contest(r) for part in parts for r in part])


def test_gains_verdicts_and_their_adjustment():
    mixed = [0.03, -0.03, 0.03, -0.03, 0.03, -0.03]
    down = [-gain for gain in STEPS]
    text = verdicts(main_part(dict(zip(VARIANTS, (STEPS, mixed, down), strict=True))))
    # Holm: the two p of .03125 are multiplied by 3 and 2, and the second may not be below the
    # first. Of the signs of six equal gains at most 3:3 apart, all reach a sum of 0: p = 1.
    for variant, row in zip(
        VARIANTS,
        (
            "+3.50 | +1.00 to +6.00 | 0.0312 | 0.0938 | **supported**",
            "+0.00 | -3.00 to +3.00 | 1.0000 | 1.0000 | **open**",
            "-3.50 | -6.00 to -1.00 | 0.0312 | 0.0938 | **refuted**",
        ),
        strict=True,
    ):
        assert f"| 2,000 pairs, 25 % label noise | {variant} | bt | 6 | {row} |" in text
    assert "## The claim: open" in text


def test_the_claim_is_that_of_the_first_condition():
    clean = {"condition": CONDITION | {"label_noise": 0.0}}
    up = dict.fromkeys(VARIANTS, [0.1] * 6)
    assert "## The claim: refuted" in verdicts(main_part({}), main_part(up, **clean))
    text = verdicts(main_part(up), main_part({}, **clean))
    # Three gains of p = .03125 are not below .05 after Holm's adjustment.
    assert "## The claim: open" in text
    assert text.count("supported**") == 3


def test_one_supported_variant_is_enough_if_its_p_is_small(monkeypatch):
    ranking = contest.ranking
    monkeypatch.setattr(
        contest, "ranking", lambda *args: [line | {"adjusted": 0.01} for line in ranking(*args)]
    )
    assert "## The claim: supported" in verdicts(main_part({"grm_dpo": STEPS}))


def test_the_best_control_is_the_best_on_the_endpoint():
    text = verdicts(main_part({"l2": STEPS, "replay": [0.1, 0, 0, 0, 0, 0], "grm_sft": [0.2] * 6}))
    assert [f"| {control} | 6 |" in text for control in CONTROLS] == [
        True,
        *[False] * 2,
        True,
        False,
    ]
    assert text.index("| l2 | 6 |") < text.index("| bt | 6 |")


def test_a_part_borrows_the_main_parts_runs_on_its_seeds():
    few, longer = CONDITION | {"pairs": 500}, CONDITION | {"epochs": 4}
    deep = page_record("bt", 101, part="heads", head={"kind": "mlp", "layers": 2})
    records = [*main_part({}), page_record("bt", 101, condition=few), deep]
    records.append(page_record("grm_sft", 102, part="strengths", strength=0.1))
    records.append(page_record("bt", 103, part="curves"))
    records.append(page_record("bt", 103, part="curves", condition=longer))

    def part(name):
        return study_grm.of_part(records, name)

    words = "2,000 pairs, 25 % label noise"
    assert [r["condition"] for r in part("heads")] == [words, words, f"{words}, 2 hidden layers"]
    assert sorted(r["method"] for r in part("strengths")) == ["bt", "grm_sft", "grm_sft, 0.1"]
    assert part("sizes") == []
    assert len(part("main")) == 6 * len(MAIN) + 1
    # The run of one epoch that is main's too is there once.
    runs = [(r["method"], r["condition"]) for r in part("curves")]
    assert runs == [("bt", words), ("grm_sft", words), ("bt", f"{words}, 4 epochs")]


def test_the_page_says_the_claim_and_what_became_of_the_language_model(tmp_path):
    study_grm.write(main_part({"replay": STEPS}), {}, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "## The claim: refuted" in page
    assert (
        "| grm_sft | replay | 6 | -3.50 | -6.00 to -1.00 | 0.0312 | 0.0938 | **refuted** |" in page
    )
    assert "| method | language, ood_prompt | drift, ood_prompt |" in page
    assert "| bt | 60.0 ± 0.0 | 12.5 ± 0.0 |" in page
    assert (tmp_path / "figures" / "page_1.svg").exists()


def test_the_published_page_is_that_of_the_published_records(tmp_path):
    docs = Path(__file__).parents[1] / "docs"
    page = tmp_path / "results_grm.md"
    study_grm.main(Config(report=docs / "study_grm_records.jsonl", page=page))
    assert page.read_bytes() == (docs / "results_grm.md").read_bytes()
