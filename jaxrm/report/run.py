"""One page about a run: what was measured, how training went, on what data, by which configuration.

The page is one file with its figures inside, made from the run directory's results.json,
config.json and <model>/metrics.jsonl. `results.json` holds

    models   {name: {split: {accuracy, n, standard_error, loss, rewards, language}}}
    seeds    [int]
    base     {split: {language, probe}}, the model that training began from (optional)
    data     {name: {read, used, dropped: {reason: count}, truncated, folded}} (optional)
    selected {name: {step, value}}, the step whose model counts, where one was chosen (optional)

where `rewards` is {mean, deviation, n, edges, best, others}, the last two histogram counts of the
best and the other responses' rewards, `language` is {accuracy, n, standard_error} of ordering
responses by their log-prob under the language-model head, `probe` the same of a linear probe on the
base's frozen states, and those three and `loss` are optional.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrm import files
from jaxrm.data.tally import Tally
from jaxrm.errors import RunDirError
from jaxrm.report import figures, tables, webpage

Results = Mapping[str, Any]


def write(run_dir: str | Path, results: Results) -> None:
    """Writes results.json and report.html into a run directory, each whole or not at all.

    Dataclasses and numpy scalars in `results` become JSON; a number that is not finite becomes
    null.
    """
    files.write_json(Path(run_dir, "results.json"), results)
    render(run_dir)


def render(run_dir: str | Path) -> Path:
    """Makes report.html from the files of a run directory, and returns its path.

    Raises RunDirError where results.json is missing or is not one.
    """
    run_dir = Path(run_dir)
    results = read(run_dir)
    config_path = run_dir / "config.json"
    config = _read_json(config_path) if config_path.exists() else {}
    logs = sorted(run_dir.glob("*/metrics.jsonl"))
    curves = {path.parent.name: _read_lines(path) for path in logs}
    with files.replacing(run_dir / "report.html") as draft:
        draft.write_text(_page(run_dir.resolve().name, results, config, curves), "utf-8")
    return run_dir / "report.html"


def read(run_dir: Path) -> Results:
    """The results that a run left. Raises RunDirError where there are none."""
    results = _read_json(run_dir / "results.json")
    if not isinstance(results, dict) or not isinstance(results.get("models"), dict):
        raise RunDirError(f"{run_dir / 'results.json'}: no results: 'models' is missing")
    return results


def table(results: Results) -> str:
    """The headline figures as text for a terminal: percent, plus or minus one standard error."""
    results = files.plain(results)
    blocks = [_text_block("accuracy, %", results["models"])]
    if language := _language(results):
        blocks.append(_text_block("language, %", language))
    if probe := _probe(results):
        blocks.append(_text_block("linear probe, %", probe))
    if selected := _selected(results):
        blocks.append(selected)
    blocks += [f"{name} data: {Tally(**tally)}" for name, tally in results.get("data", {}).items()]
    return "\n\n".join(blocks)


def _selected(results: Results) -> str:
    steps = [f"{name} {at['step']}" for name, at in results.get("selected", {}).items()]
    return f"best step on val: {', '.join(steps)}" if steps else ""


def _text_block(title: str, models: Results) -> str:
    head = [title, *(f"{split} (n={_n(models, split)})" for split in _splits(models))]
    return tables.aligned(head, _rows(models))


def _table(title: str, models: Results) -> str:
    head = [
        f"{html.escape(split)}<small>n = {_n(models, split)}</small>" for split in _splits(models)
    ]
    rows = ([html.escape(name), *cells] for name, *cells in _rows(models))
    return webpage.table([title, *head], rows)


def _rows(models: Results) -> list[list[str]]:
    splits = _splits(models)
    return [
        [name, *(tables.spread(by_split.get(split), mean="accuracy") for split in splits)]
        for name, by_split in models.items()
    ]


def _page(name: str, results: Results, config: Mapping[str, Any], curves: Mapping) -> str:
    models = results["models"]
    colors = figures.colors(models)
    legend = webpage.legend(colors)
    seeds = ", ".join(str(seed) for seed in results.get("seeds", []))
    sections = [
        webpage.section(
            "Accuracy",
            "The share of comparisons whose better response gets the strictly higher reward, "
            "± one standard error. A tie is no win.",
            _table("accuracy, %", models),
            legend,
            webpage.grid([figures.bars(models, _splits(models), colors)], wide=True),
            webpage.note(
                "Bars: 95 % intervals, ± 1.96 standard errors. Dashed: chance. "
                + html.escape(_selected(results))
            ),
        )
    ]
    trained = {name: curves[name] for name in models if name in curves}
    if held_out := figures.held_out(trained, colors):
        note = "Measured during training on a sample of each split."
        sections.append(webpage.section("Held-out curves", note, legend, webpage.grid(held_out)))
    if training := figures.training(trained, colors):
        note = (
            "On the training batches: each logged step, and a running mean over it. Objectives "
            "differ between models where their losses have different terms."
        )
        sections.append(webpage.section("Training curves", note, legend, webpage.grid(training)))
    if before := {name: lines for name, lines in curves.items() if name not in models}:
        before_colors = dict.fromkeys(before, figures.NEUTRAL)
        charts = figures.training(before, before_colors)
        note = "The language model that the reward models start from."
        sections.append(
            webpage.section(
                "Pretraining", note, webpage.legend(before_colors), webpage.grid(charts)
            )
        )
    if histograms := figures.rewards(models, _splits(models), colors):
        note = "Of the best response to each prompt (filled) and of all others (outlined)."
        sections.append(webpage.section("Rewards", note, legend, webpage.grid(histograms)))
    if language := _language(results):
        note = (
            "How often the better response is also the likelier one under the model's own "
            "language-model head, ± one standard error: what is left of its ability to write."
        )
        sections.append(webpage.section("Language ability", note, _table("language, %", language)))
    if probe := _probe(results):
        note = (
            "What a linear reward on the base's frozen states gets right, fitted to clean labels "
            "of each split's own law: how much there was to keep."
        )
        sections.append(
            webpage.section("Linear probe of the base", note, _table("linear probe, %", probe))
        )
    if data := results.get("data"):
        note = "Rows that training read, used, and left out, by reason."
        sections.append(webpage.section("Data", note, _data_table(data)))
    if config:
        sections.append(webpage.configuration(config))
    subtitle = "Reward models compared." if len(models) > 1 else "A reward model."
    subtitle += f" Seed {seeds}." if seeds else ""
    title = name if list(models) == [name] else f"{name}: {', '.join(models)}"
    return webpage.document(title, subtitle, sections)


def _data_table(data: Mapping[str, Mapping]) -> str:
    reasons = sorted({reason for tally in data.values() for reason in tally["dropped"]})
    head = ["data", "read", "used", *reasons, "prompts truncated", "system messages folded"]
    rows = []
    for name, tally in data.items():
        counts = [tally["read"], tally["used"], *(tally["dropped"].get(r, 0) for r in reasons)]
        counts += [tally.get("truncated", 0), tally.get("folded", 0)]
        rows.append([html.escape(name), *(f"{count:,}" for count in counts)])
    return webpage.table([html.escape(title) for title in head], rows)


def _n(models: Results, split: str) -> str:
    """How many comparisons a split has; models are scored on the same ones."""
    counts = {
        by_split[split]["n"] for by_split in models.values() if "n" in by_split.get(split, {})
    }
    return ", ".join(f"{n:,}" for n in sorted(counts)) or "—"


def _splits(models: Results) -> list[str]:
    return list(dict.fromkeys(split for by_split in models.values() for split in by_split))


def _language(results: Results) -> dict[str, dict[str, Any]]:
    """{model: {split: figure}} of the base, where there is one, and of every model that has it."""
    every = {"base": results.get("base", {}), **results["models"]}
    language = {
        name: {
            split: values["language"] for split, values in by_split.items() if "language" in values
        }
        for name, by_split in every.items()
    }
    return {name: by_split for name, by_split in language.items() if by_split}


def _probe(results: Results) -> dict[str, dict[str, Any]]:
    """The base's probe by split; {} where none was made."""
    base = results.get("base", {})
    probed = {split: values["probe"] for split, values in base.items() if "probe" in values}
    return {"base": probed} if probed else {}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: cannot be read: {error}") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: cannot be read: {error}") from error
