"""Records of made-up runs, whose means and gains are plain to see."""

from __future__ import annotations

import dataclasses

from jaxrm.study import records
from jaxrm.study.records import CONDITIONS, MAIN, METHODS, SPLITS

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


def curve(*points):
    return [
        {"step": step, "id/macro": macro, "id/loss": 0.5, "val/macro": 0.6, "val/loss": 0.7}
        for step, macro in points
    ]


def study(found):
    return records.read(found, CHOICES, CONDITIONS)


def rows(text):
    """The cells of a text's table lines, heads and rules among them."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
