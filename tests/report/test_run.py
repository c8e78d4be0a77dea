"""A report says what the run's files say, in one file, and can be made again from them."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from jaxrm.data.tally import Tally
from jaxrm.errors import RunDirError
from jaxrm.report import __main__ as command
from jaxrm.report import figures
from jaxrm.report import run as report


def share(accuracy, n=100):
    error = math.sqrt(accuracy * (1 - accuracy) / n)
    return {"accuracy": accuracy, "n": n, "standard_error": error}


def scored(accuracy):
    edges = np.linspace(-1, 1, 4)
    histogram = {"edges": edges, "best": np.array([0, 1, 3]), "others": np.array([3, 1, 0])}
    return share(accuracy) | {"loss": 0.6, "rewards": histogram, "language": share(0.5)}


@pytest.fixture
def results():
    return {
        "seeds": [7],
        "data": {"train": Tally(10, 8, {"tie": 2})},
        "base": {"id": {"language": share(0.9)}, "ood": {"language": share(0.8)}},
        "models": {
            "baseline": {"id": scored(0.8), "ood": scored(0.5)},
            "grm": {"id": scored(0.9), "ood": scored(0.75)},
        },
    }


@pytest.fixture
def run(tmp_path):
    for model in ("base", "baseline", "grm"):
        lines = [{"step": 10 * i, "loss": 1 / i, "grad_norm": 1.0} for i in range(1, 9)]
        if model != "base":
            for line in lines:
                line |= {"accuracy": 0.5, "eval/id/accuracy": 0.6, "eval/id/loss": 0.6}
        (tmp_path / model).mkdir()
        path = tmp_path / model / "metrics.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    (tmp_path / "config.json").write_text('{"regularizer": "<sft>"}', "utf-8")
    return tmp_path


def test_the_table_by_hand(results):
    assert report.table(results).splitlines() == [
        "accuracy, %  id (n=100)  ood (n=100)",
        "------------------------------------",
        "baseline     80.0 ± 4.0   50.0 ± 5.0",
        "grm          90.0 ± 3.0   75.0 ± 4.3",
        "",
        "language, %  id (n=100)  ood (n=100)",
        "------------------------------------",
        "base         90.0 ± 3.0   80.0 ± 4.0",
        "baseline     50.0 ± 5.0   50.0 ± 5.0",
        "grm          50.0 ± 5.0   50.0 ± 5.0",
        "",
        "train data: read 10, used 8, dropped 2: 2 tie",
    ]


def test_the_chosen_steps_are_shown(run, results):
    results["selected"] = {"grm": {"step": 70, "value": 0.5}}
    assert "best step on val: grm 70" in report.table(results).splitlines()
    report.write(run, results)
    assert "best step on val: grm 70" in (run / "report.html").read_text("utf-8")


def test_results_become_plain_json(run, results):
    results["models"]["grm"]["id"]["loss"] = np.float32("nan")
    report.write(run, results)
    found = json.loads((run / "results.json").read_text("utf-8"))
    tally = {"read": 10, "used": 8, "dropped": {"tie": 2}, "truncated": 0, "folded": 0}
    assert found["data"] == {"train": tally}
    assert found["models"]["baseline"]["id"]["rewards"]["best"] == [0, 1, 3]
    assert found["models"]["grm"]["id"]["loss"] is None
    assert found["models"]["grm"]["id"]["accuracy"] == 0.9


def test_the_page_has_every_section_and_no_outside_reference(run, results):
    report.write(run, results)
    page = (run / "report.html").read_text("utf-8")
    sections = re.findall(r"<h2>(.*?)</h2>", page)
    assert sections == [
        "Accuracy",
        "Held-out curves",
        "Training curves",
        "Pretraining",
        "Rewards",
        "Language ability",
        "Data",
        "Configuration",
    ]
    for text in ("75.0 ± 4.3", "n = 100", "Seed 7", "&quot;&lt;sft&gt;&quot;", "<td>10</td>"):
        assert text in page
    # bars; id's accuracy and loss; loss, accuracy and gradient norm; base's two; 2 x 2 histograms
    assert page.count("<svg") == page.count("</svg>") == 1 + 2 + 3 + 2 + 4
    assert not re.search(r"<script|<link|@import|src=|href=\"http|url\(http", page)


def test_the_same_files_make_the_same_page(run, results):
    report.write(run, results)
    first = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert report.render(run) == run / "report.html"
    assert (run / "report.html").read_bytes() == first
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_only_the_headline_figures_are_needed(tmp_path):
    report.write(tmp_path, {"models": {"m": {"s": share(1.0), "t": {"accuracy": None, "n": 3}}}})
    page = (tmp_path / "report.html").read_text("utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Accuracy"]
    assert "100.0 ± 0.0" in page
    assert "<td>—</td>" in page


def test_names_are_text_not_markup_or_mathematics(tmp_path):
    report.write(tmp_path, {"models": {"<b>": {"<i>$s_1$": scored(0.5)}}})
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<b>" not in page
    assert "<i>$" not in page
    # two tables' heads, the bars' axis and the histogram's title
    assert page.count("&lt;i&gt;$s_1$") == 4


def test_a_model_has_its_own_colour_in_every_chart(results):
    models = results["models"]
    colors = figures.colors(models)
    lines = {"step": 1, "loss": 1.0, "accuracy": 1.0, "eval/id/loss": 1.0}
    for name in models:
        alone = {name: models[name]}
        charts = [
            figures.bars(alone, ["id"], colors),
            *figures.training({name: [lines]}, colors),
            *figures.held_out({name: [lines]}, colors),
            *figures.rewards(alone, ["id"], colors),
        ]
        assert len(charts) == 5
        for chart in charts:
            used = {color for color in colors.values() if color.lower() in chart.lower()}
            assert used == {colors[name]}
    assert len(set(figures.colors("abcdef").values())) == 6


def test_a_loss_of_several_terms_shows_each():
    one = {"step": 1, "loss": 1.0, "loss/reward": 1.0}
    assert len(figures.training({"m": [one]}, {"m": "k"})) == 1
    assert len(figures.training({"m": [one | {"loss/text": 0.5}]}, {"m": "k"})) == 3


@pytest.mark.parametrize("content", [None, "{", "[]", '{"models": []}'])
def test_a_run_without_results_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content, "utf-8")
    with pytest.raises(RunDirError, match="results.json"):
        report.render(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_command_prints_the_table_and_the_page(run, results, capsys):
    report.write(run, results)
    command.main(command.Config(run))
    printed = capsys.readouterr().out
    assert printed.startswith("accuracy, %")
    assert printed.rstrip().endswith("report.html")
