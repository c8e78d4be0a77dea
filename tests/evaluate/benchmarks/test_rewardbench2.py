"""RewardBench 2 by hand, and against the `rewardbench` package where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.evaluate.benchmarks.rewardbench2 import REWARDBENCH2, WEIGHTS
from tests.evaluate.benchmarks.scoring import complete, figures, means, read

OFFICIAL, STRICT = REWARDBENCH2.rules
NAN = math.nan


def row(subset, name, right=1, wrong=3):
    return {
        "id": name,
        "subset": subset,
        "prompt": f"{subset} {name}",
        "chosen": [f"right {k}" for k in range(right)],
        "rejected": [f"wrong {k}" for k in range(wrong)],
    }


def test_rows_of_the_hub():
    found = read(REWARDBENCH2, [row("Math", "1"), row("Focus", "1"), row("Ties", "tied:3", 2, 2)])
    assert [c.id for c in found] == ["Math/1", "Focus/1", "Ties/tied:3"]
    assert [c.ranks for c in found] == [(0, 1, 1, 1), (0, 1, 1, 1), (0, 0, 1, 1)]


def credits(rule, rows, scores):
    comparisons = read(REWARDBENCH2, rows)
    return means(rule.credit(comparisons, [np.array(given) for given in scores]))


@pytest.mark.parametrize(
    ("scores", "official", "strict"),
    [
        ([2.0, 1.0, 0.0, 1.0], 1, 1),
        ([2.0, 2.0, 0.0, 2.0], 1 / 3, 0),
        ([1.0, 1.0, 1.0, 1.0], 1 / 4, 0),
        ([1.0, 2.0, 0.0, 0.0], 0, 0),
        ([2.0, 1.0, NAN, 1.0], 0, 0),
        ([NAN, 1.0, 1.0, 1.0], 0, 0),
        ([NAN, NAN, NAN, NAN], 0, 0),
    ],
)
def test_the_best_of_four(scores, official, strict):
    rows = [row("Math", "1")]
    assert credits(OFFICIAL, rows, [scores])["Math"] == official
    assert credits(STRICT, rows, [scores])["Math"] == strict


def ties(*pairs):
    """The Ties groups of pairs of prompts: (scores of ref, scores of tied), two right ones."""
    rows, scores = [], []
    for n, (ref, tied) in enumerate(pairs):
        rows += [row("Ties", f"tied:{n}", 2, 2), row("Ties", f"ref:{n}", 1, 2)]
        scores += [tied, ref]
    return credits(OFFICIAL, rows, scores)


@pytest.mark.parametrize(
    ("ref", "tied", "expected"),
    [
        # d = 1, m_tied = 3, m_ref = 2: beyond the spread, both; tanh(2 / 1 - 1)
        ([2.0, 0.0, -5.0], [5.0, 4.0, 1.0, 0.0], (1, 1, 1, 1, math.tanh(1))),
        # m_ref = .5 < d = 1 < m_tied: tanh(.5 - 1)
        ([0.5, 0.0, -5.0], [5.0, 4.0, 1.0, 0.0], (1, 1, 1, 0, math.tanh(-0.5))),
        # m_tied = 1 = d is not beyond it; the reference ties and is lost: tanh(0 / 1 - 1)
        ([0.0, 0.0, 0.0], [5.0, 4.0, 3.0, 0.0], (1, 0, 0, 0, math.tanh(-1))),
        # no spread: m / 0 is infinite with m's sign
        ([1.0, 0.0, 0.0], [5.0, 5.0, 3.0, 0.0], (1, 1, 1, 1, 1)),
        ([-1.0, 0.0, 0.0], [5.0, 5.0, 3.0, 0.0], (1, 0, 1, 0, -1)),
        # a constant scorer: 0 / 0 is no number, and counts as 0
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], (0, 0, 0, 0, 0)),
        # NaN, wherever it stands
        ([2.0, 0.0, NAN], [5.0, 4.0, 1.0, 0.0], (1, 0, 1, 0, 0)),
        ([2.0, 0.0, 0.0], [5.0, NAN, 1.0, 0.0], (0, 1, 0, 0, 0)),
    ],
)
def test_the_five_parts_of_ties(ref, tied, expected):
    found = ties((ref, tied))
    assert [found[group] for group in WEIGHTS] == pytest.approx(list(expected))


def test_ties_are_a_sum_of_means():
    good = ([2.0, 0.0, -5.0], [5.0, 4.0, 1.0, 0.0])
    bad = ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    rows = [row(name, "1") for name in ("Factuality", "Focus", "Math", "Precise IF", "Safety")]
    scores = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    for n, (ref, tied) in enumerate((good, bad)):
        rows += [row("Ties", f"ref:{n}", 1, 2), row("Ties", f"tied:{n}", 2, 2)]
        scores += [ref, tied]
    score = 0.3 * 0.5 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * math.tanh(1) / 2
    found = figures(OFFICIAL, read(REWARDBENCH2, rows), scores)
    assert found["Ties"] == pytest.approx(score)
    assert found["overall"] == pytest.approx((1 + 0.5 + 0 + 1 + 1 + score) / 6)
    strict = figures(STRICT, read(REWARDBENCH2, rows), scores)
    assert (strict["Ties"], strict["Focus"]) == (0.5, 0.0)
    missing = figures(OFFICIAL, read(REWARDBENCH2, rows[1:]), scores[1:])
    assert math.isnan(missing["overall"])
    assert missing["Ties"] == found["Ties"]


def test_the_prompts_of_a_pair_are_drawn_together():
    rows = [row("Ties", "ref:7", 1, 2), row("Ties", "tied:7", 2, 2), row("Ties", "tied:8", 2, 2)]
    scores = [np.zeros(3), np.zeros(4), np.zeros(4)]
    found = list(OFFICIAL.credit(read(REWARDBENCH2, rows), scores))
    assert [(c.group, c.cluster) for c in found] == [
        ("Ties/ref", "Ties/7"),
        ("Ties/tied", "Ties/7"),
        ("Ties/tied", "Ties/8"),
        ("Ties/tied beyond spread", "Ties/7"),
        ("Ties/both beyond spread", "Ties/7"),
        ("Ties/margin", "Ties/7"),
    ]


def test_scales():
    assert complete(REWARDBENCH2, OFFICIAL, 1.0)["Ties"] == pytest.approx(1.01)
    assert complete(REWARDBENCH2, STRICT, 1.0)["overall"] == 1.0


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row("Code", "1"), "a.jsonl, row 1: field 'subset': expected one of"),
        (row("Ties", "3"), "a.jsonl, row 1: field 'id': expected ref:<number> or tied:<number>"),
        (row("Math", "1", wrong=0), "a.jsonl, row 1: field 'rejected': empty"),
        (row("Math", "1", right=0), "a.jsonl, row 1: field 'chosen': empty"),
        ({"id": "1", "subset": "Math", "prompt": "q"}, "a.jsonl, row 1: field 'chosen': missing"),
        (row("Math", "1") | {"chosen": "one"}, "field 'chosen': expected a list, found text"),
    ],
)
def test_bad_rows(bad, problem):
    with pytest.raises(DataError, match=problem):
        read(REWARDBENCH2, [bad])


def package():
    """The package's functions, as of 2026: earlier releases leave prompts without spread out."""
    utils = pytest.importorskip("rewardbench.utils", exc_type=ImportError)
    if not hasattr(utils, "_compute_prompt_stats"):
        pytest.skip("this release of rewardbench scores Ties in another way")
    return utils


def test_ties_against_the_package():
    """Random pairs of prompts, some unpaired, with ties and, where it stands first, NaN."""
    utils = package()
    from datasets import Dataset

    generator = np.random.default_rng(0)
    for _ in range(200):
        samples = []
        for n in range(generator.integers(1, 6)):
            kinds = {"ref": 1, "tied": int(generator.integers(2, 5))}
            for kind, right in kinds.items():
                scores = generator.integers(0, 5, right + 3) / 4 + right * generator.integers(0, 2)
                scores[:right] += generator.integers(0, 3)
                if generator.random() < 0.1:
                    scores[generator.choice([0, right])] = NAN
                if n and generator.random() < 0.1:
                    continue
                samples.append(
                    {"id": f"{kind}:{n}", "num_correct": right, "scores": scores.tolist()}
                )
        rows = [row("Ties", s["id"], s["num_correct"], 3) for s in samples]
        _, theirs = utils.process_single_model(Dataset.from_list(samples))
        ours = figures(OFFICIAL, read(REWARDBENCH2, rows), [s["scores"] for s in samples])
        assert ours["Ties"] == pytest.approx(theirs, abs=1e-12)


def test_best_of_four_against_the_package():
    utils = package()
    from datasets import Dataset

    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4, (500, 4)).astype(float)
    scores[generator.random(scores.shape) < 0.05] = NAN
    flat = Dataset.from_dict({"text": ["a"] * scores.size, "scores": scores.ravel().tolist()})
    theirs = utils.reroll_and_score_dataset(flat, [4] * len(scores))["results"]
    comparisons = read(REWARDBENCH2, [row("Math", str(n)) for n in range(len(scores))])
    ours = [credit.value for credit in OFFICIAL.credit(comparisons, list(scores))]
    assert ours == pytest.approx(list(theirs))
