"""A page as its parts, which become a Markdown file and sections of an HTML page alike.

Text may have **bold** words and `code`.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxrm import files
from jaxrm.report import webpage
from jaxrm.report.tables import Table


@dataclasses.dataclass(frozen=True)
class Chart:
    """A figure as a whole SVG file, and what it shows, in words."""

    shows: str
    svg: str


@dataclasses.dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Content = str | Table | Chart | Commands


@dataclasses.dataclass(frozen=True)
class Part:
    """A headline, and what stands beneath it."""

    title: str
    content: Sequence[Content]


def write_markdown(page: Path, title: str, above: Sequence[str], parts: Iterable[Part]) -> None:
    """Writes a page as Markdown, and its charts as SVG files in `figures` beside it.

    Args:
      above: paragraphs between the title and the first part.
    """
    text, drawn = [f"# {title}", *above], 0
    for part in parts:
        text.append(f"## {part.title}")
        for one in part.content:
            if isinstance(one, Chart):
                drawn += 1
                place = f"figures/{page.stem}_{drawn}.svg"
                text.append(f"![{one.shows}]({place})")
                with files.replacing(page.parent / place) as draft:
                    draft.write_text(one.svg, "utf-8")
            elif isinstance(one, Table):
                text.append(one.markdown())
            elif isinstance(one, Commands):
                text.append("\n".join(f"    {line}" for line in one.lines))
            else:
                text.append(one)
    with files.replacing(page) as draft:
        draft.write_text("\n\n".join(text) + "\n", "utf-8")


def sections(parts: Iterable[Part]) -> list[str]:
    """The parts in HTML, with their charts inside."""
    return [
        webpage.section(inline(part.title), "", *(_html(one) for one in part.content))
        for part in parts
    ]


def inline(text: str) -> str:
    """A text's HTML."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)


def _html(one: Content) -> str:
    if isinstance(one, Chart):
        return webpage.chart(one.svg)
    if isinstance(one, Table):
        rows = ([inline(str(cell)) for cell in row] for row in one.rows)
        return webpage.table([inline(str(name)) for name in one.head], rows, one.left)
    if isinstance(one, Commands):
        return webpage.commands(one.lines)
    return f"<p>{inline(one)}</p>"
