"""Figures over seeds and gains by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm.study import outcome


def records():
    """Of two methods on two seeds, in another order than that of seeds."""
    macro = {("bt", 3): 0.5, ("bt", 2): 0.6, ("new", 3): 0.7, ("new", 2): 0.6}
    return [{"method": m, "seed": s, "macro": x, "cost": 2 * s} for (m, s), x in macro.items()]


def test_values_are_of_methods_by_seed():
    both = {"id": lambda r: r["macro"], "cost": lambda r: r["cost"]}
    measured = outcome.values(records(), both)
    assert list(measured) == ["bt", "new"]
    assert list(measured["bt"]["id"]) == [0.6, 0.5]
    assert list(measured["new"]["id"]) == [0.6, 0.7]
    assert list(measured["new"]["cost"]) == [4, 6]


def test_gains_are_paired_and_adjusted_over_all_of_them():
    measured = {
        "bt": {"id": np.zeros(6), "ood": np.zeros(6)},
        "new": {"id": np.full(6, 0.1), "ood": np.array([0.1, -0.1] * 3)},
    }
    summed = outcome.summary(measured, outcome.over(measured, "bt"))
    gains = summed["gains"]["new - bt"]
    assert gains["id"]["mean"] == pytest.approx(0.1)
    assert (gains["id"]["p"], gains["id"]["holm"]) == (2 / 2**6, 4 / 2**6)
    assert (gains["ood"]["p"], gains["ood"]["holm"]) == (1, 1)
    assert summed["methods"]["new"]["ood"]["standard_error"] == pytest.approx(np.sqrt(0.06 / 5 / 6))
    shown = outcome.tables(summed, ["id", "ood"], {"ood": (1, 2)})
    assert shown.split("\n\n") == [
        "methods       id, %          ood\n--------------------------------\n"
        "bt        0.0 ± 0.0  0.00 ± 0.00\nnew      10.0 ± 0.0  0.00 ± 0.04",
        "gains               id, points                   ood\n"
        "----------------------------------------------------\n"
        "new - bt  +10.0 [+10.0, +10.0]  +0.00 [-0.10, +0.10]",
    ]
    assert outcome.summary(measured, [])["gains"] == {}
