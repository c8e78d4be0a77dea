"""The parts of a page: one HTML file with its style and figures inside, which needs no network.

What a function takes is HTML, if not said otherwise.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrm import files


def document(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """A whole page out of sections; `title` and `subtitle` are text."""
    title, subtitle = html.escape(title), html.escape(subtitle)
    return PAGE.format(title=title, subtitle=subtitle, style=STYLE, body="\n".join(sections))


def section(title: str, note: str, *parts: str) -> str:
    """A headline, a paragraph if `note` is not empty, and `parts`."""
    first = f"<p>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{first}{''.join(parts)}</section>"


def note(text: str) -> str:
    """What is to be known of a chart or a table, in small letters."""
    return f"<p class=note>{text}</p>"


def configuration(values: Mapping[str, Any]) -> str:
    """The section with what was asked for, folded away; `values` are as they come."""
    text = html.escape(json.dumps(values, indent=2, ensure_ascii=False, default=str))
    body = f"<details><summary>As resolved</summary><pre>{text}</pre></details>"
    return section("Configuration", "", body)


def grid(charts: Iterable[str], wide: bool = False) -> str:
    """Charts (`figures.svg`) side by side as far as the screen has room, or one `wide` column."""
    shape = "grid wide" if wide else "grid"
    return f"<div class='{shape}'>{''.join(f'<figure>{chart}</figure>' for chart in charts)}</div>"


def chart(svg: str) -> str:
    """One chart as wide as the page; `svg` is a whole file of it."""
    return f"<figure class=chart>{svg[svg.index('<svg') :]}</figure>"


def commands(lines: Iterable[str]) -> str:
    """Lines for a shell, which are text."""
    return f"<pre>{html.escape(chr(10).join(lines))}</pre>"


def legend(colors: Mapping[str, str]) -> str:
    """The name that each colour stands for."""
    items = (
        f"<span><i style='background:{color}'></i>{html.escape(name)}</span>"
        for name, color in colors.items()
    )
    return f"<div class=legend>{''.join(items)}</div>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; the first `left` columns are text, the others are numbers."""

    def line(cells: Iterable[str], tag: str) -> str:
        opened = (f"{tag} class=text" if 0 < i < left else tag for i in itertools.count())
        of_row = (f"<{open_}>{cell}</{tag}>" for open_, cell in zip(opened, cells, strict=False))
        return f"<tr>{''.join(of_row)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table>{line(head, 'th')}{body}</table></div>"


def leave(
    directory: Path, title: str, results: Any, text: str, sections: Sequence[str] = ()
) -> None:
    """Writes results.json and report.html in a run's directory, and prints the text.

    Args:
      title: of the page; several lines are a title and what stands beneath it.
      results: every number that the text shows.
      text: tables for a terminal.
      sections: what the page shows in place of the text.
    """
    files.write_json(directory / "results.json", results)
    headline, _, rest = title.strip().partition("\n")
    measured = section("What was measured", "", f"<pre>{html.escape(text)}</pre>")
    parts = [*sections] or [measured]
    if about := rest.strip():
        parts.append(section("What was asked", "", f"<pre>{html.escape(about)}</pre>"))
    with files.replacing(directory / "report.html") as draft:
        draft.write_text(document(headline, "", parts), "utf-8")
    print(f"{text}\n\n{directory / 'report.html'}")


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
th:first-child, td:first-child, .text { text-align: left }
th small { display: block; font-weight: 400; color: #57606a }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0; font-size: .9rem }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .4em }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)) }
.grid.wide { grid-template-columns: minmax(0, 32rem) }
figure { margin: 0; min-width: 0; max-width: 30rem }
.wide figure, .chart { max-width: none }
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
