"""Each section shows the runs that it is about, and names those that are missing."""

from __future__ import annotations

import dataclasses

import pytest

from jaxrm.errors import DataError
from jaxrm.study import sections
from jaxrm.study.records import METHODS, SPLITS
from tests.study.toy_records import (
    CHOICES,
    SEEDS,
    STEPS,
    A,
    B,
    C,
    curve,
    main_part,
    record,
    rows,
    study,
)


def test_verdicts_name_the_best_control_and_missing_runs():
    records = main_part({"replay": [0.0] * 5 + [0.6], "bt_early": [0.01] * 6, "grm_sft": STEPS})
    records = [r for r in records if (r["method"], r["seed"]) != ("l2", 105)]
    text = sections.verdicts(study(records)).text
    assert "Controls: n = 5 seeds, those that all with runs have. Missing: l2 (seed 105)." in text
    best, plain = (row for row in rows(text) if row[:2] == ["A", "grm_sft"])
    assert best[2:5] == ["bt_early", "6", "+2.50"]
    assert plain[2:5] == ["bt", "6", "+3.50"]


def test_a_condition_has_means_errors_and_trials():
    # Of .80 and .82 the standard error is .01414 / sqrt(2) = .01.
    records = main_part({"grm_sft": [0.0, 0.02]}, seeds=(100, 101))
    del records[0]["splits"]["spurious"]
    section = sections.condition_tables(study(records), "A")
    found = {row[0]: row[1:] for row in rows(section.text)[:10]}
    assert found["method"] == list(SPLITS)
    assert found["grm_sft"] == ["81.0 ± 1.0", *["70.0 ± 0.0"] * 4]
    assert found["bt"] == ["80.0 ± 0.0", *["70.0 ± 0.0"] * 2, "missing", "70.0 ± 0.0"]
    after = {row[0]: row[1:] for row in rows(section.text)[10:]}
    state = ["missing", "60.0 ± 0.0", "missing", "0.125 ± 0.000", "75.0 ± 0.0"]
    assert after["grm_sft"] == ["lr 0.001, strength 0.1", *state]
    assert section.title == "Condition A: 2,000 pairs, 25 % label noise, cue agreement 0.7"
    assert "n = 2 seeds." in section.text


def test_a_method_without_runs_is_missing_and_no_other_is_changed_by_it():
    records = [r for r in main_part({}) if r["method"] != "replay"]
    section = sections.condition_tables(study(records), "A")
    assert ["replay", *["missing"] * 5] in rows(section.text)
    assert ["bt", "80.0 ± 0.0", *["70.0 ± 0.0"] * 4] in rows(section.text)
    assert (
        "n = 6 seeds, those that all with runs have. Missing: replay (all seeds)." in section.text
    )


def test_sizes_borrow_cells_of_other_parts_and_compare_seed_by_seed():
    many = dataclasses.replace(A, pairs=1000)
    records = main_part({"grm_sft": STEPS}) + main_part({"grm_sft": STEPS[::-1]}, B)
    for seed, gain in zip(SEEDS[:2], (0.01, 0.03), strict=True):
        records.append(record("bt", seed, condition=many, part="sizes"))
        records.append(record("grm_sft", seed, 0.8 + gain, condition=many, part="sizes"))
    section = sections.sizes(study(records), A)
    assert rows(section.text)[2:] == [
        ["25 %", "500", "+5.50 ± 0.50", "+0.00 ± 0.00"],
        ["25 %", "1,000", "+2.00 ± 1.00", "+0.00 ± 0.00"],
        ["25 %", "2,000", "+1.50 ± 0.50", "+0.00 ± 0.00"],
    ]
    assert "n = 2 seeds. The" in section.text  # the main part's other seeds are not missing here

    late = [r for r in records if (r["part"], r["method"], r["seed"]) != ("sizes", "bt", 101)]
    text = sections.sizes(study(late), A).text
    assert "n = 1 seeds" in text
    assert "Missing: bt, 1,000 pairs, 25 % noise (seed 101)." in text


def test_curves_of_different_lengths_are_named():
    uneven = [record("bt", seed, part="curves", curve=curve(*[(1, 0.5)] * seed)) for seed in (1, 2)]
    with pytest.raises(DataError, match="curves of bt have different numbers of points"):
        sections.curves(study(uneven))


def test_heads_are_told_apart_and_the_frozen_trunk_stands_beside_the_trained_ones():
    deep = [
        record(method, 100, 0.9, part="heads", head={"kind": "mlp", "layers": 2})
        for method in ("bt", "grm_sft")
    ]
    given = study([*main_part({}), *deep, record("frozen", 100, 0.65, part="frozen")])
    heads = {row[0]: row[1] for row in rows(sections.heads(given, A).text)[2:]}
    assert heads == {
        "bt, linear": "80.0",
        "grm_sft, linear": "80.0",
        "bt, mlp of 2 layers": "90.0",
        "grm_sft, mlp of 2 layers": "90.0",
    }
    frozen = {row[0]: row[1] for row in rows(sections.frozen(given, A).text)[2:]}
    assert frozen == {"frozen": "65.0", "bt": "80.0", "grm_sft": "80.0"}


def test_trials_of_the_screen_with_the_chosen_one_marked():
    found = rows(sections.screen(CHOICES).text)
    assert found[2:4] == [
        ["bt", "lr 0.0003", "70.0 ± 1.0", ""],
        ["bt", "lr 0.001", "72.5", "chosen"],
    ]
    assert len(found) == 2 + 2 * len(METHODS)


def test_runs_are_counted_and_missing_ones_named():
    records = [r for r in main_part({}) if (r["method"], r["seed"]) != ("l2", 103)]
    records += [record("bt", seed, condition=C) for seed in SEEDS]
    section = sections.inventory(study(records), records)
    # 47 + 6 runs of 36 s are .53 h, and of .25 million tokens 13.25
    assert rows(section.text)[2:] == [["main", "53", "6", "0.53", "13.2"]]
    assert "l2 at A (seed 103); bt at B (all seeds)" in section.text
    assert "bt at C" not in section.text
    assert "ood_prompt 40; id 40" in section.text
