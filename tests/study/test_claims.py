"""Gains, their adjustment and the verdict on them, by hand."""

from __future__ import annotations

import pytest

from jaxrm.study.claims import best_control, claims, overall
from jaxrm.study.records import VARIANTS
from tests.study.toy_records import SEEDS, STEPS, A, main_part, record, study


def test_the_best_control_is_the_hardest_one_on_the_endpoint():
    gains = {"l2": [0.02] * 6, "replay": [0.03] * 5 + [-0.05], "grm_sft": STEPS}
    given = study(main_part(gains))
    assert best_control(given, A) == "l2"  # replay's mean is .0167 above bt's
    claim = claims(given, A, "l2")[0]
    assert (claim.variant, claim.control) == ("grm_sft", "l2")
    assert claim.gain.mean == pytest.approx(0.015)
    assert (claim.gain.low, claim.gain.high) == pytest.approx((-0.01, 0.04))
    against_bt = claims(given, A, "bt")[0]
    assert against_bt.gain.mean == pytest.approx(0.035)


def test_controls_are_compared_on_the_seeds_that_all_of_them_have():
    gains = {"replay": [0.0] * 5 + [0.6]}
    records = main_part(gains | {"bt_early": [0.01] * 6})
    records = [r for r in records if (r["method"], r["seed"]) != ("l2", 105)]
    assert best_control(study(main_part(gains)), A) == "replay"
    assert best_control(study(records), A) == "bt_early"
    assert best_control(study([]), A) is None


def test_a_gain_is_over_common_seeds():
    kept = {"grm_sft": SEEDS[:5], "bt": SEEDS[1:]}
    records = [
        r for r in main_part({"grm_sft": STEPS}) if r["seed"] in kept.get(r["method"], SEEDS)
    ]
    claim = claims(study(records), A, "bt")[0]
    assert claim.gain.n == 4
    assert claim.gain.mean == pytest.approx((0.02 + 0.03 + 0.04 + 0.05) / 4)
    assert claim.verdict == "open"  # four seeds cannot reject at .05


def test_two_common_seeds_make_a_gain_and_one_makes_none():
    records = [record("bt", 100), record("bt", 101), record("grm_sft", 101, 0.9)]
    assert claims(study(records), A, "bt") == []
    claim = claims(study([*records, record("grm_sft", 100)]), A, "bt")[0]
    assert (claim.gain.mean, claim.gain.n) == (pytest.approx(0.05), 2)


def test_a_missing_variant_still_counts_in_the_adjustment():
    records = [r for r in main_part({"grm_sft": STEPS}) if r["method"] != "grm_dpo"]
    claim = claims(study(records), A, "bt")[0]
    assert claim.adjusted == 3 * claim.gain.p == 3 / 32


def test_the_whole_claim_needs_one_adjusted_gain_or_three_refutations():
    def word(**gains):
        given = study(main_part({f"grm_{name}": found for name, found in gains.items()}))
        return overall(claims(given, A, "bt"))

    down = [-gain for gain in STEPS]
    # p is .03125 with six seeds, and .09375 after Holm's adjustment over three variants.
    assert word(sft=STEPS) == "open"
    assert word(sft=down, dpo=down, dpo_reference_free=down) == "refuted"
    assert word(sft=down, dpo=down, dpo_reference_free=[0.1, -0.1] * 3) == "open"

    seeds = range(100, 110)  # p = 2 / 2^10, times 3
    many = study(main_part({"grm_sft": [0.01] * 9 + [0.02]}, seeds=seeds))
    assert overall(claims(many, A, "bt")) == "supported"

    without = [r for r in main_part(dict.fromkeys(VARIANTS, down)) if r["method"] != "grm_dpo"]
    assert overall(claims(study(without), A, "bt")) == "open"
