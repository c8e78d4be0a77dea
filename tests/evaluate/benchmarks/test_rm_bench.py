"""RM-Bench's matrix by hand, and real rows by length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.evaluate import benchmark
from jaxrm.evaluate.benchmarks.rm_bench import RM_BENCH
from jaxrm.evaluate.scorers import longer
from tests.evaluate.benchmarks.scoring import complete, figures, means, read
from tests.shared_data import shared

(OFFICIAL,) = RM_BENCH.rules


def row(domain, n=8, column="domain"):
    return {
        "id": str(n),
        column: domain,
        "prompt": "q",
        "chosen": ["right", "right and long", "right in bold"],
        "rejected": ["wrong", "wrong and long", "wrong in bold"],
    }


def test_rows():
    rows = [row("safety-refuse"), row("safety-response"), row("chat"), row("code", column="subset")]
    found = read(RM_BENCH, rows)
    assert [c.subset for c in found] == ["safety", "safety", "chat", "code"]
    assert [c.id for c in found] == ["safety-refuse/8", "safety-response/8", "chat/8", "code/8"]
    assert found[0].ranks == (0, 0, 0, 1, 1, 1)


def test_one_matrix_by_hand():
    # rows are chosen styles, columns rejected ones:
    #   1 > 0   1 = 1   1 < 3        1 0 0
    #   2 > 0   2 > 1   2 < 3   ->   1 1 0
    #   3 > 0   3 > 1   3 = 3        1 1 0
    scores = [np.array([1.0, 2, 3, 0, 1, 3])]
    found = means(OFFICIAL.credit(read(RM_BENCH, [row("chat")]), scores))
    assert found == pytest.approx({"chat/easy": 1.0, "chat/normal": 2 / 3, "chat/hard": 0.0})
    one = [np.array([math.nan, 2, 3, 0, 1, math.nan])]
    found = means(OFFICIAL.credit(read(RM_BENCH, [row("chat")]), one))
    assert found == pytest.approx({"chat/easy": 1.0, "chat/normal": 1 / 3, "chat/hard": 0.0})


def test_domains_and_levels_by_hand():
    every, none = [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]
    easy = [0, 1, 2, 0, 1, 2]  # below the diagonal only
    rows = [row("chat"), row("math"), row("code"), *[row("safety-refuse")] * 3]
    rows.append(row("safety-response"))
    found = figures(OFFICIAL, read(RM_BENCH, rows), [every, none, easy, *[every] * 3, none])
    assert found == pytest.approx(
        {
            "overall": (1 + 0 + 1 / 3 + 3 / 4) / 4,
            "chat": 1.0,
            "math": 0.0,
            "code": 1 / 3,
            "safety": 3 / 4,
            "easy": (1 + 0 + 1 + 3 / 4) / 4,
            "normal": (1 + 0 + 0 + 3 / 4) / 4,
            "hard": (1 + 0 + 0 + 3 / 4) / 4,
        }
    )
    assert next(iter(found)) == "overall"


def test_a_missing_domain():
    rows = [row("chat"), row("code"), row("safety-refuse")]
    found = figures(OFFICIAL, read(RM_BENCH, rows), [[1, 1, 1, 0, 0, 0]] * 3)
    assert (found["chat"], found["code"], found["safety"]) == (1.0, 1.0, 1.0)
    assert all(math.isnan(found[name]) for name in ("overall", "math", "easy", "normal", "hard"))


def test_scale():
    assert set(complete(RM_BENCH, OFFICIAL, 0.75).values()) == {0.75}


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row("alpacaeval", column="subset"), "a.jsonl, row 1: field 'subset': expected one of"),
        (row("poetry"), "a.jsonl, row 1: field 'domain': expected one of"),
        ({"prompt": "q", "chosen": ["a"] * 3, "rejected": ["b"] * 3}, "field 'domain': missing"),
        (row("chat") | {"rejected": ["a", "b"]}, "field 'rejected': expected 3 styles, found 2"),
        ({"domain": "chat", "prompt": "q", "rejected": ["a"] * 3}, "field 'chosen': missing"),
    ],
)
def test_bad_rows(bad, problem):
    with pytest.raises(DataError, match=problem):
        read(RM_BENCH, [bad])


def test_real_rows_by_length():
    """Against figures that were computed without this code when the data was collected."""
    comparisons = benchmark.read(RM_BENCH, shared("eval", "rm_bench_native.jsonl.gz"))
    assert benchmark.short_of(RM_BENCH, comparisons) == {"math": (0, 529)}
    found = means(OFFICIAL.credit(comparisons, longer(comparisons)))
    levels = ("easy", "normal", "hard")
    assert [round(found[f"chat/{level}"], 3) for level in levels] == [0.811, 0.284, 0.026]
    assert [round(found[f"code/{level}"], 3) for level in levels] == [0.775, 0.519, 0.254]
    refuse, response = (0.89, 0.158, 0.023), (0.987, 0.777, 0.238)
    pooled = [(284 * a + 157 * b) / 441 for a, b in zip(refuse, response, strict=True)]
    assert [found[f"safety/{level}"] for level in levels] == pytest.approx(pooled, abs=1e-3)
