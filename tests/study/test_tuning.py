"""The choice among a method's trials."""

from __future__ import annotations

import re

import pytest

from jaxrm.study.tuning import choice, choices_table


def test_the_choice_is_the_first_of_the_best_means():
    def found(rate, macro):
        return {"learning_rate": rate, "strength": None, "splits": {"val": {"macro": macro}}}

    records = [found(1.0, 0.5), found(1.0, 0.7), found(2.0, 0.6), found(2.0, 0.6), found(3.0, 0.1)]
    chosen = choice(records)
    assert (chosen["learning_rate"], chosen["strength"]) == (1.0, None)
    first, second, third = chosen["trials"]
    assert first["mean"] == pytest.approx(0.6)
    # Deviations of -.1 and .1: sqrt(.02 / 1) / sqrt(2)
    assert first["standard_error"] == pytest.approx(0.1)
    assert (second["standard_error"], second["n"]) == (0.0, 2)
    assert (third["standard_error"], third["n"]) == (None, 1)


def test_another_figure_may_choose():
    def found(rate, macro, accuracy):
        figures = {"macro": macro, "accuracy": accuracy}
        return {"learning_rate": rate, "strength": None, "splits": {"val": figures}}

    records = [found(1.0, 0.9, 0.1), found(2.0, 0.2, 0.3)]
    assert choice(records)["learning_rate"] == 1.0
    assert choice(records, "accuracy")["learning_rate"] == 2.0


def test_the_table_marks_what_was_chosen():
    def found(strength, macro):
        return {"learning_rate": 0.1, "strength": strength, "splits": {"val": {"macro": macro}}}

    choices = {"l2": choice([found(3.0, 0.5), found(30.0, 0.7), found(30.0, 0.9)])}
    lines = choices_table(choices).splitlines()[2:]
    assert [line.endswith("chosen") for line in lines] == [False, True]
    assert re.split(r"\s{2,}", lines[1]) == ["l2", "lr 0.1, strength 30", "80.0 ± 10.0", "chosen"]
