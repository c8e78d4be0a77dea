"""What holds of every benchmark."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from jaxrm.evaluate.benchmarks import BENCHMARKS
from tests.evaluate.benchmarks.scoring import complete

ROWS = {
    "rewardbench": 2985,
    "rewardbench2": 1865,
    "rm_bench": 1327,
    "unified_feedback": 0,
    "hhh": 221,
    "mt_bench": 3355 + 2400,
    "mt_bench_turns": 3355 + 2400,
    "llmbar": 419,
    "processbench": 3400,
    "contrast_instructions": 2 * (1188 + 612 + 289 + 36),
    "prior_sets": 17154,
    "rewardbench_legacy": 2985 + 17154,
}
"""Their published sizes."""


def test_sizes():
    assert {name: sum(b.expected.values()) for name, b in BENCHMARKS.items()} == ROWS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_without_any_group_no_rule_has_a_headline(name):
    for rule in BENCHMARKS[name].rules:
        found = complete(BENCHMARKS[name], rule, math.nan)
        assert all(math.isnan(value) for value in found.values())
        assert next(iter(found)) in ("overall", "C_res")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rules_have_names_and_words_of_their_own(name):
    rules = BENCHMARKS[name].rules
    assert len({rule.name for rule in rules}) == len({rule.says for rule in rules}) == len(rules)


def test_the_documentation_names_every_one_and_no_other():
    page = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z0-9_`, ]+`) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(BENCHMARKS)
