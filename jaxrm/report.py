"""One page about a run: what was measured, how training went, on what data, by which configuration.

    python -m jaxrm.report RUN

makes RUN/report.html again from RUN/results.json, RUN/config.json and RUN/<model>/metrics.jsonl.
The page is one file with its figures inside. `results.json` holds

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

import dataclasses
import html
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from jaxrm import cli, figures, files
from jaxrm.data.tally import Tally
from jaxrm.errors import RunDirError

Results = Mapping[str, Any]


def write(run_dir: str | Path, results: Results) -> None:
    """Writes results.json and report.html into a run directory, each whole or not at all.

    Dataclasses and numpy scalars in `results` become JSON; a number that is not finite becomes
    null.
    """
    plain = _plain(results)
    with files.replacing(Path(run_dir, "results.json")) as draft:
        draft.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", "utf-8")
    render(run_dir)


def render(run_dir: str | Path) -> Path:
    """Makes report.html from the files of a run directory, and returns its path.

    Raises RunDirError where results.json is missing or is not one.
    """
    run_dir = Path(run_dir)
    results = _read_json(run_dir / "results.json")
    if not isinstance(results, dict) or not isinstance(results.get("models"), dict):
        raise RunDirError(f"{run_dir / 'results.json'}: no results: 'models' is missing")
    config_path = run_dir / "config.json"
    config = _read_json(config_path) if config_path.exists() else {}
    logs = sorted(run_dir.glob("*/metrics.jsonl"))
    curves = {path.parent.name: _read_lines(path) for path in logs}
    with files.replacing(run_dir / "report.html") as draft:
        draft.write_text(_page(run_dir.resolve().name, results, config, curves), "utf-8")
    return run_dir / "report.html"


def table(results: Results) -> str:
    """The headline figures as text for a terminal: percent, plus or minus one standard error."""
    results = _plain(results)
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
    splits = _splits(models)
    head = [title, *(f"{split} (n={_n(models, split)})" for split in splits)]
    rows = [head]
    rows += [
        [name, *(_percent(found.get(split)) for split in splits)] for name, found in models.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in pairs)
        for pairs in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _page(name: str, results: Results, config: Mapping[str, Any], curves: Mapping) -> str:
    models = results["models"]
    colors = figures.colors(models)
    legend = _legend(colors)
    seeds = ", ".join(str(seed) for seed in results.get("seeds", []))
    sections = [
        _section(
            "Accuracy",
            "The share of comparisons whose better response gets the strictly higher reward, "
            "± one standard error. A tie is no win.",
            _table(models),
            legend,
            _grid([figures.bars(models, _splits(models), colors)], wide=True),
            "<p class=note>Bars: 95 % intervals, ± 1.96 standard errors. Dashed: chance. "
            f"{html.escape(_selected(results))}</p>",
        )
    ]
    trained = {name: curves[name] for name in models if name in curves}
    if held_out := figures.held_out(trained, colors):
        note = "Measured during training on a sample of each split."
        sections.append(_section("Held-out curves", note, legend, _grid(held_out)))
    if training := figures.training(trained, colors):
        note = (
            "On the training batches: each logged step, and a running mean over it. Objectives "
            "differ between models where their losses have different terms."
        )
        sections.append(_section("Training curves", note, legend, _grid(training)))
    if before := {name: lines for name, lines in curves.items() if name not in models}:
        before_colors = dict.fromkeys(before, figures.NEUTRAL)
        charts = figures.training(before, before_colors)
        note = "The language model that the reward models start from."
        sections.append(_section("Pretraining", note, _legend(before_colors), _grid(charts)))
    if histograms := figures.rewards(models, _splits(models), colors):
        note = "Of the best response to each prompt (filled) and of all others (outlined)."
        sections.append(_section("Rewards", note, legend, _grid(histograms)))
    if language := _language(results):
        note = (
            "How often the better response is also the likelier one under the model's own "
            "language-model head, ± one standard error: what is left of its ability to write."
        )
        sections.append(_section("Language ability", note, _table(language)))
    if probe := _probe(results):
        note = (
            "What a linear reward on the base's frozen states gets right, fitted to clean labels "
            "of each split's own law: how much there was to keep."
        )
        sections.append(_section("Linear probe of the base", note, _table(probe)))
    if data := results.get("data"):
        note = "Rows that training read, used, and left out, by reason."
        sections.append(_section("Data", note, _data_table(data)))
    if config:
        text = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
        body = f"<details><summary>As resolved</summary><pre>{text}</pre></details>"
        sections.append(_section("Configuration", "", body))
    title = html.escape(f"{name}: {', '.join(models)}")
    subtitle = f"Reward models compared. Seed {seeds}." if seeds else "Reward models compared."
    return PAGE.format(title=title, subtitle=subtitle, style=STYLE, body="\n".join(sections))


def _section(title: str, note: str, *parts: str) -> str:
    note = f"<p>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{note}{''.join(parts)}</section>"


def _grid(charts: Iterable[str], wide: bool = False) -> str:
    shape = "grid wide" if wide else "grid"
    return f"<div class='{shape}'>{''.join(f'<figure>{chart}</figure>' for chart in charts)}</div>"


def _legend(colors: Mapping[str, str]) -> str:
    items = (
        f"<span><i style='background:{color}'></i>{html.escape(name)}</span>"
        for name, color in colors.items()
    )
    return f"<div class=legend>{''.join(items)}</div>"


def _table(models: Results) -> str:
    splits = _splits(models)
    head = [f"{html.escape(split)}<small>n = {_n(models, split)}</small>" for split in splits]
    rows = [
        [html.escape(name), *(_percent(found.get(split), " %") for split in splits)]
        for name, found in models.items()
    ]
    return _html_table(["model", *head], rows)


def _data_table(data: Mapping[str, Mapping]) -> str:
    reasons = sorted({reason for tally in data.values() for reason in tally["dropped"]})
    head = ["data", "read", "used", *reasons, "prompts truncated", "system messages folded"]
    rows = []
    for name, tally in data.items():
        counts = [tally["read"], tally["used"], *(tally["dropped"].get(r, 0) for r in reasons)]
        counts += [tally.get("truncated", 0), tally.get("folded", 0)]
        rows.append([html.escape(name), *(f"{count:,}" for count in counts)])
    return _html_table([html.escape(title) for title in head], rows)


def _html_table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table>{line(head, 'th')}{body}</table></div>"


def _percent(figure: Mapping[str, Any] | None, unit: str = "") -> str:
    if figure is None or figure.get("accuracy") is None:
        return "—"
    return f"{100 * figure['accuracy']:.1f} ± {100 * figure['standard_error']:.1f}{unit}"


def _n(models: Results, split: str) -> str:
    """How many comparisons a split has; models are scored on the same ones."""
    counts = {found[split]["n"] for found in models.values() if "n" in found.get(split, {})}
    return ", ".join(f"{n:,}" for n in sorted(counts)) or "—"


def _splits(models: Results) -> list[str]:
    return list(dict.fromkeys(split for found in models.values() for split in found))


def _language(results: Results) -> dict[str, dict[str, Any]]:
    """{model: {split: figure}} of the base, where there is one, and of every model that has it."""
    every = {"base": results.get("base", {}), **results["models"]}
    language = {
        name: {split: values["language"] for split, values in found.items() if "language" in values}
        for name, found in every.items()
    }
    return {name: found for name, found in language.items() if found}


def _probe(results: Results) -> dict[str, dict[str, Any]]:
    """The base's probe by split; {} where none was made."""
    base = results.get("base", {})
    found = {split: values["probe"] for split, values in base.items() if "probe" in values}
    return {"base": found} if found else {}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if dataclasses.is_dataclass(value):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


@dataclasses.dataclass(frozen=True)
class Config:
    """Make a run's report again."""

    run: tyro.conf.Positional[Path]
    """A run directory with its results.json."""


def main(config: Config) -> None:
    """Renders, and prints the headline table."""
    path = render(config.run)
    print(table(_read_json(config.run / "results.json")))
    print(f"\n{path}")


STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 66rem; color: #1b1f24;
  background: #fff; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 0 0 .25rem }
p { margin: 0 0 .75rem; color: #57606a; max-width: 46rem }
section { border-top: 1px solid #d8dee4; margin-top: 2rem; padding-top: 1.25rem }
.note { font-size: .875rem }
.scroll { overflow-x: auto; margin-bottom: 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .4rem 1.1rem .4rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #eaeef2 }
th { font-weight: 600; vertical-align: bottom }
th:first-child, td:first-child { text-align: left }
th small { display: block; font-weight: 400; color: #57606a }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0; font-size: .9rem }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .4em }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)) }
.grid.wide { grid-template-columns: minmax(0, 32rem) }
figure { margin: 0; min-width: 0; max-width: 30rem }
.wide figure { max-width: none }
svg { width: 100%; height: auto; display: block }
svg text { font-family: inherit !important }
pre { overflow-x: auto; background: #f6f8fa; padding: 1rem; font-size: .85rem; border-radius: 6px }
summary { cursor: pointer }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
{body}
</body>
</html>
"""


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
