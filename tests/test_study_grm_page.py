"""The study's records as a contest's, and the preregistered verdict, by hand."""

from __future__ import annotations

import pytest

from experiments import study_grm_page
from experiments.study_grm_page import (
    MAIN,
    VARIANTS,
    as_of_contest,
    best_control,
    claims,
    of_part,
    overall,
)
from jaxrm.study import contest

SEEDS = range(100, 106)
STEPS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
"""Gains of six seeds. Their mean is .035; all have one sign, so that p = 2 / 2^6 = .03125, and the
95 % interval goes from the least to the largest."""
CONDITION = {"pairs": 2000, "label_noise": 0.25, "cue_agreement": 0.7, "epochs": 1}


def record(method, seed, ood=0.8, part="main", **other):
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
        "splits": {name: split(0.7) for name in study_grm_page.SPLITS[1:]}
        | {"ood_prompt": split(ood) | {"language": 0.6}},
        "drift": {"ood_prompt": 0.125},
        "stopped": 30,
        "steps": 40,
        "curve": [],
        "seconds": 36.0,
        "tokens": 250_000,
    } | other


def main_part(gains, seeds=SEEDS):
    """Every method at one condition; `gains` over .8 by method and seed, 0 where not named."""
    return [
        record(method, seed, 0.8 + gain)
        for method in MAIN
        for seed, gain in zip(seeds, gains.get(method, [0.0] * len(seeds)), strict=True)
    ]


def methods(records):
    (of_condition,) = contest.cells(list(map(as_of_contest, records))).values()
    return of_condition


def test_gains_verdicts_and_their_adjustment():
    mixed = [0.03, -0.03, 0.03, -0.03, 0.03, -0.03]
    down = [-gain for gain in STEPS]
    gains = {"grm_sft": STEPS, "grm_dpo": mixed, "grm_dpo_reference_free": down}
    made = claims(methods(main_part(gains)), "bt")
    # Holm: the two p of .03125 are multiplied by 3 and 2, and the second may not be below the
    # first. Of the signs of six equal gains at most 3:3 apart, all reach a sum of 0: p = 1.
    assert [p for _, p, _ in made.values()] == pytest.approx([0.09375, 1.0, 0.09375])
    assert [verdict for *_, verdict in made.values()] == ["supported", "open", "refuted"]
    gain, _, _ = made["grm_sft"]
    assert (gain.n, gain.mean, gain.low, gain.high) == pytest.approx((6, 0.035, 0.01, 0.06))


def test_a_missing_variant_still_counts_in_the_adjustment():
    alone = claims(
        methods([r for r in main_part({"grm_sft": STEPS}) if r["method"][:5] != "grm_d"]), "bt"
    )
    assert list(alone) == ["grm_sft"]
    assert alone["grm_sft"][1] == pytest.approx(3 * 0.03125)


def test_the_best_control_is_the_best_on_the_endpoint_over_shared_seeds():
    records = main_part({"l2": STEPS, "replay": [0.1, 0, 0, 0, 0, 0]})
    assert best_control(methods(records)) == "l2"
    of_first = [r for r in records if r["method"] != "bt_early" or r["seed"] == 100]
    assert best_control(methods(of_first)) == "replay"


def test_the_whole_needs_one_supported_variant_or_all_refuted():
    def made(*verdicts, p=0.01):
        return {name: (None, p, verdict) for name, verdict in zip(VARIANTS, verdicts, strict=False)}

    assert overall(made("refuted", "supported", "open")) == "supported"
    assert overall(made("supported", "open", "open", p=0.06)) == "open"
    assert overall(made("refuted", "refuted", "refuted")) == "refuted"
    assert overall(made("refuted", "refuted")) == "open"


def test_a_part_borrows_the_main_parts_runs_on_its_seeds():
    few = CONDITION | {"pairs": 500}
    deep = record("bt", 101, part="heads", head={"kind": "mlp", "layers": 2})
    records = [*main_part({}), record("bt", 101, condition=few), deep]
    records.append(record("grm_sft", 102, part="strengths", strength=0.1))
    conditions = [r["condition"] for r in of_part(records, "heads")]
    words = "2,000 pairs, 25 % label noise"
    assert conditions == [words, words, f"{words}, 2 hidden layers"]
    names = [r["method"] for r in of_part(records, "strengths")]
    assert sorted(names) == ["bt", "grm_sft", "grm_sft, 0.1"]
    assert of_part(records, "sizes") == []


def test_the_page_says_the_claim_and_what_became_of_the_language_model(tmp_path):
    study_grm_page.write(main_part({"replay": STEPS}), {}, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "## The claim: refuted" in page
    assert (
        "| grm_sft | replay | 6 | -3.50 | -6.00 to -1.00 | 0.0312 | 0.0938 | **refuted** |" in page
    )
    assert "| method | language, ood_prompt | drift, ood_prompt |" in page
    assert "| bt | 60.0 ± 0.0 | 12.5 ± 0.0 |" in page
    assert (tmp_path / "figures" / "page_1.svg").exists()
