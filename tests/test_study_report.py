"""The study's page says what the records say: gains by hand, and what is missing by name."""

from __future__ import annotations

import dataclasses
import random
import re

import pytest

from jaxrm import study_report
from jaxrm.errors import DataError
from jaxrm.study_report import CONDITIONS, MAIN, METHODS, SPLITS, VARIANTS

A, B, C = CONDITIONS.values()
SEEDS = range(100, 106)
STEPS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
"""Gains of six seeds. Their mean is .035; all have one sign, so that p = 2 / 2^6 = .03125, and the
95 % interval goes from the least to the largest."""

CHOICES = {
    method: {
        "learning_rate": 1e-3,
        "strength": None,
        "trials": [
            {"learning_rate": 3e-4, "strength": None, "mean": 0.7, "standard_error": 0.01},
            {"learning_rate": 1e-3, "strength": None, "mean": 0.725, "standard_error": None},
        ],
    }
    for method in METHODS
}
CHOICES["grm_sft"] |= {"strength": 0.1}


def record(method, seed, ood=0.8, condition=A, part="main", **other):
    def split(macro):
        return {"macro": macro, "accuracy": 0.5, "n": 40, "loss": 0.6, "language": None}

    chosen = {name: CHOICES[method][name] for name in ("learning_rate", "strength")}
    return {
        "method": method,
        **chosen,
        "condition": dataclasses.asdict(condition),
        "seed": seed,
        "head": {"kind": "linear", "layers": 1},
        "part": part,
        "splits": {name: split(0.7) for name in SPLITS[1:]}
        | {"ood_prompt": split(ood) | {"language": 0.6}},
        "drift": {"ood_prompt": 0.125},
        "stopped": 30,
        "steps": 40,
        "curve": [],
        "seconds": 36.0,
        "tokens": 250_000,
    } | other


def main_part(gains, condition=A, seeds=SEEDS):
    """Every method at one condition; `gains` over .8 by method and seed, 0 where not named."""
    return [
        record(method, seed, 0.8 + gain, condition)
        for method in MAIN
        for seed, gain in zip(seeds, gains.get(method, [0.0] * len(seeds)), strict=True)
    ]


def study(records):
    return study_report.read(records, CHOICES, CONDITIONS)


def rows(section):
    """The cells of a section's table lines, heads and rules among them."""
    lines = [line for line in section.text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def written(tmp_path, records):
    page, figures = tmp_path / "docs" / "results.md", tmp_path / "docs" / "figures"
    study_report.write(records, CHOICES, page, figures)
    images = sorted(figures.iterdir()) if figures.exists() else []
    return page.read_text("utf-8"), {path.name: path.read_text("utf-8") for path in images}


def test_gains_verdicts_and_their_adjustment_by_hand():
    down = [-gain for gain in STEPS]
    mixed = [0.03, -0.03, 0.03, -0.03, 0.03, -0.03]
    gains = {"grm_sft": STEPS, "grm_dpo": mixed, "grm_dpo_reference_free": down}
    found = rows(study_report.verdicts(study(main_part(gains))))
    # Holm: the two p of .03125 are multiplied by 3 and 2, and the second may not be below the
    # first. Of the signs of six equal gains at most 3:3 apart, all reach a sum of 0: p = 1.
    assert found[2:5] == [
        ["A", "grm_sft", "bt", "6", "+3.50", "+1.00 to +6.00", "0.0312", "0.0938", "**supported**"],
        ["A", "grm_dpo", "bt", "6", "+0.00", "-3.00 to +3.00", "1.0000", "1.0000", "**open**"],
        [
            *["A", "grm_dpo_reference_free", "bt", "6", "-3.50", "-6.00 to -1.00"],
            *["0.0312", "0.0938", "**refuted**"],
        ],
    ]
    assert found[5] == ["B", "grm_sft", *["missing"] * 7]


def test_the_best_control_is_the_hardest_one_on_the_endpoint():
    gains = {"l2": [0.02] * 6, "replay": [0.03] * 5 + [-0.05], "grm_sft": STEPS}
    given = study(main_part(gains))
    assert study_report.best_control(given, A) == "l2"  # replay's mean is .0167 above bt's
    claim = study_report.claims(given, A, "l2")[0]
    assert (claim.variant, claim.control) == ("grm_sft", "l2")
    assert claim.gain.mean == pytest.approx(0.015)
    assert (claim.gain.low, claim.gain.high) == pytest.approx((-0.01, 0.04))
    against_bt = study_report.claims(given, A, "bt")[0]
    assert against_bt.gain.mean == pytest.approx(0.035)


def test_controls_are_compared_on_the_seeds_that_all_of_them_have():
    gains = {"replay": [0.0] * 5 + [0.6]}
    records = main_part(gains | {"bt_early": [0.01] * 6})
    records = [r for r in records if (r["method"], r["seed"]) != ("l2", 105)]
    assert study_report.best_control(study(main_part(gains)), A) == "replay"
    assert study_report.best_control(study(records), A) == "bt_early"
    text = study_report.verdicts(study(records)).text
    assert "Controls: n = 5 seeds, those that all with runs have. Missing: l2 (seed 105)." in text


def test_a_gain_is_over_common_seeds_and_shows_how_many():
    kept = {"grm_sft": SEEDS[:5], "bt": SEEDS[1:]}
    records = [
        r for r in main_part({"grm_sft": STEPS}) if r["seed"] in kept.get(r["method"], SEEDS)
    ]
    claim = study_report.claims(study(records), A, "bt")[0]
    assert claim.gain.n == 4
    assert claim.gain.mean == pytest.approx((0.02 + 0.03 + 0.04 + 0.05) / 4)
    found = rows(study_report.verdicts(study(records)))
    assert found[2][3:6] == ["4", "+3.50", "-∞ to +∞"]  # four seeds cannot reject at .05
    assert found[2][-1] == "**open**"


def test_two_common_seeds_make_a_gain_and_one_makes_none():
    records = [record("bt", 100), record("bt", 101), record("grm_sft", 101, 0.9)]
    assert study_report.claims(study(records), A, "bt") == []
    claim = study_report.claims(study([*records, record("grm_sft", 100)]), A, "bt")[0]
    assert (claim.gain.mean, claim.gain.n) == (pytest.approx(0.05), 2)


def test_a_missing_variant_still_counts_in_the_adjustment():
    records = [r for r in main_part({"grm_sft": STEPS}) if r["method"] != "grm_dpo"]
    claim = study_report.claims(study(records), A, "bt")[0]
    assert claim.adjusted == 3 * claim.gain.p == 3 / 32


def test_the_whole_claim_needs_one_adjusted_gain_or_three_refutations():
    def word(**gains):
        given = study(main_part({f"grm_{name}": found for name, found in gains.items()}))
        return study_report.overall(study_report.claims(given, A, "bt"))

    down = [-gain for gain in STEPS]
    # p is .03125 with six seeds, and .09375 after Holm's adjustment over three variants.
    assert word(sft=STEPS) == "open"
    assert word(sft=down, dpo=down, dpo_reference_free=down) == "refuted"
    assert word(sft=down, dpo=down, dpo_reference_free=[0.1, -0.1] * 3) == "open"

    seeds = range(100, 110)  # p = 2 / 2^10, times 3
    many = study(main_part({"grm_sft": [0.01] * 9 + [0.02]}, seeds=seeds))
    assert study_report.overall(study_report.claims(many, A, "bt")) == "supported"

    without = [r for r in main_part(dict.fromkeys(VARIANTS, down)) if r["method"] != "grm_dpo"]
    assert study_report.overall(study_report.claims(study(without), A, "bt")) == "open"


def test_a_condition_has_means_errors_and_trials():
    # Of .80 and .82 the standard error is .01414 / sqrt(2) = .01.
    records = main_part({"grm_sft": [0.0, 0.02]}, seeds=(100, 101))
    del records[0]["splits"]["spurious"]
    section = study_report.condition_tables(study(records), "A")
    found = {row[0]: row[1:] for row in rows(section)[:10]}
    assert found["method"] == list(SPLITS)
    assert found["grm_sft"] == ["81.0 ± 1.0", *["70.0 ± 0.0"] * 4]
    assert found["bt"] == ["80.0 ± 0.0", *["70.0 ± 0.0"] * 2, "missing", "70.0 ± 0.0"]
    after = {row[0]: row[1:] for row in rows(section)[10:]}
    state = ["missing", "60.0 ± 0.0", "missing", "0.125 ± 0.000", "75.0 ± 0.0"]
    assert after["grm_sft"] == ["lr 0.001, strength 0.1", *state]
    assert section.title == "Condition A: 2,000 pairs, 25 % label noise, cue agreement 0.7"
    assert "n = 2 seeds." in section.text


def test_a_method_without_runs_is_missing_and_no_other_is_changed_by_it():
    records = [r for r in main_part({}) if r["method"] != "replay"]
    section = study_report.condition_tables(study(records), "A")
    assert ["replay", *["missing"] * 5] in rows(section)
    assert ["bt", "80.0 ± 0.0", *["70.0 ± 0.0"] * 4] in rows(section)
    assert (
        "n = 6 seeds, those that all with runs have. Missing: replay (all seeds)." in section.text
    )


def test_only_the_chosen_trial_counts():
    other = record("bt", 100, 0.1, learning_rate=3e-4)
    assert study([other]).chosen("bt", A) == {}
    assert list(study([other, record("bt", 100)]).chosen("bt", A)) == [100]


def test_sizes_borrow_cells_of_other_parts_and_compare_seed_by_seed():
    many = dataclasses.replace(A, pairs=1000)
    records = main_part({"grm_sft": STEPS}) + main_part({"grm_sft": STEPS[::-1]}, B)
    for seed, gain in zip(SEEDS[:2], (0.01, 0.03), strict=True):
        records.append(record("bt", seed, condition=many, part="sizes"))
        records.append(record("grm_sft", seed, 0.8 + gain, condition=many, part="sizes"))
    section = study_report.sizes(study(records), A)
    assert rows(section)[2:] == [
        ["25 %", "500", "+5.50 ± 0.50", "+0.00 ± 0.00"],
        ["25 %", "1,000", "+2.00 ± 1.00", "+0.00 ± 0.00"],
        ["25 %", "2,000", "+1.50 ± 0.50", "+0.00 ± 0.00"],
    ]
    assert "n = 2 seeds. The" in section.text  # the main part's other seeds are not missing here

    late = [r for r in records if (r["part"], r["method"], r["seed"]) != ("sizes", "bt", 101)]
    text = study_report.sizes(study(late), A).text
    assert "n = 1 seeds" in text
    assert "Missing: bt, 1,000 pairs, 25 % noise (seed 101)." in text


def test_heads_are_told_apart_and_the_frozen_trunk_stands_beside_the_trained_ones():
    deep = [
        record(method, 100, 0.9, part="heads", head={"kind": "mlp", "layers": 2})
        for method in ("bt", "grm_sft")
    ]
    given = study([*main_part({}), *deep, record("frozen", 100, 0.65, part="frozen")])
    heads = {row[0]: row[1] for row in rows(study_report.heads(given, A))[2:]}
    assert heads == {
        "bt, linear": "80.0",
        "grm_sft, linear": "80.0",
        "bt, mlp of 2 layers": "90.0",
        "grm_sft, mlp of 2 layers": "90.0",
    }
    frozen = {row[0]: row[1] for row in rows(study_report.frozen(given, A))[2:]}
    assert frozen == {"frozen": "65.0", "bt": "80.0", "grm_sft": "80.0"}


def test_trials_of_the_screen_with_the_chosen_one_marked():
    found = rows(study_report.screen(CHOICES))
    assert found[2:4] == [
        ["bt", "lr 0.0003", "70.0 ± 1.0", ""],
        ["bt", "lr 0.001", "72.5", "chosen"],
    ]
    assert len(found) == 2 + 2 * len(METHODS)


def test_runs_are_counted_and_missing_ones_named():
    records = [r for r in main_part({}) if (r["method"], r["seed"]) != ("l2", 103)]
    records += [record("bt", seed, condition=C) for seed in SEEDS]
    section = study_report.inventory(study(records), records)
    # 47 + 6 runs of 36 s are .53 h, and of .25 million tokens 13.25
    assert rows(section)[2:] == [["main", "53", "6", "0.53", "13.2"]]
    assert "l2 at A (seed 103); bt at B (all seeds)" in section.text
    assert "bt at C" not in section.text
    assert "ood_prompt 40; id 40" in section.text


def curve(*points):
    return [
        {"step": step, "id/macro": macro, "id/loss": 0.5, "val/macro": 0.6, "val/loss": 0.7}
        for step, macro in points
    ]


def everything():
    """A few records of every part."""
    swept = [
        record("grm_sft", seed, 0.8 + alpha, part="strengths", strength=alpha)
        for seed in SEEDS[:2]
        for alpha in (0.01, 0.3)
    ]
    sizes = [
        record(method, seed, 0.7, dataclasses.replace(A, pairs=4000), "sizes")
        for seed in SEEDS[:2]
        for method in ("bt", "grm_sft")
    ]
    curves = [
        record(
            method,
            seed,
            condition=dataclasses.replace(A, epochs=epochs),
            part="curves",
            curve=curve((20 * epochs, 0.6), (40 * epochs, 0.7)),
        )
        for seed in SEEDS[:2]
        for epochs in (1, 4)
        for method in ("bt", "grm_sft")
    ]
    deep = [record("bt", 100, part="heads", head={"kind": "mlp", "layers": 1})]
    frozen = [record("frozen", 100, 0.6, part="frozen")]
    whole = [*main_part({"grm_sft": STEPS}), *main_part({}, B), *main_part({}, C)]
    return [*whole, *swept, *sizes, *curves, *deep, *frozen]


def test_the_page_has_every_section_and_the_same_bytes_in_any_order(tmp_path):
    records = everything()
    page, figures = written(tmp_path, records)
    assert re.findall(r"^## (\w+)", page, re.MULTILINE) == [
        *["Verdicts", "Condition", "Condition", "Condition", "Gains", "Language", "Training"],
        *["Learning", "Strength", "Depth", "Frozen", "Trials", "Runs"],
    ]
    assert study_report.NO_RECORDS not in page
    assert set(re.findall(r"\]\(figures/(.*?)\)", page)) == set(figures)
    assert sorted(figures) == [
        f"{name}.svg" for name in ("curves", "forest", "mechanism", "sizes", "strengths")
    ]
    for svg in figures.values():
        # The first thing drawn is the background: GitHub's dark theme must not shine through.
        assert re.search(r"<path [^>]*style=\"(.*?)\"", svg)[1] == "fill: #ffffff"
    random.Random(0).shuffle(records)
    assert written(tmp_path, records) == (page, figures)


def test_sections_without_records_say_so(tmp_path):
    page, figures = written(tmp_path, [record("bt", 100, part="main")])
    assert page.count(study_report.NO_RECORDS) == 8
    assert set(figures) == {"mechanism.svg"}
    page, figures = written(tmp_path / "empty", [])
    assert page.count(study_report.NO_RECORDS) == 10
    assert not figures
    assert "GRM's claim, at condition A against the best control: **open**" in page


def test_records_that_contradict_each_other_are_named():
    with pytest.raises(DataError, match="two records of seed 100"):
        study([record("bt", 100), record("bt", 100, part="sizes")])
    with pytest.raises(DataError, match="unknown method 'dpo'"):
        study([record("bt", 100) | {"method": "dpo"}])
    odd = dataclasses.replace(A, pairs=7)
    with pytest.raises(DataError, match="part main has none of its conditions: 7 pairs"):
        study([record("bt", 100, condition=odd)])
    head = {"kind": "mlp", "layers": 1}
    with pytest.raises(DataError, match="heads differ outside the part heads"):
        study([record("bt", 100), record("bt", 101, part="sizes", head=head)])
    uneven = [record("bt", seed, part="curves", curve=curve(*[(1, 0.5)] * seed)) for seed in (1, 2)]
    with pytest.raises(DataError, match="curves of bt have different numbers of points"):
        study_report.curves(study(uneven))


def test_every_method_has_a_look_of_its_own():
    looks = {(study_report.COLORS[name], study_report.MARKERS[name]) for name in METHODS}
    assert len(looks) == len(METHODS)
