"""A page's parts in both of their forms."""

from __future__ import annotations

from jaxrm.report import parts
from jaxrm.report.parts import Chart, Commands, Part
from jaxrm.report.tables import Table

SVG = "<?xml version='1.0'?>\n<svg><g/></svg>"
PAGE = [
    Part(
        "First",
        ["**Few** of `val` < 6.", Table(["a", "b"], [["**x**", 1]]), Chart("Gains", SVG)],
    ),
    Part("Second", [Commands(["run 'a b' > c", "stop"])]),
]


def test_markdown_has_its_charts_beside_it(tmp_path):
    parts.write_markdown(tmp_path / "page.md", "Title", ["Above."], PAGE)
    assert (tmp_path / "page.md").read_text() == (
        "# Title\n\nAbove.\n\n## First\n\n**Few** of `val` < 6.\n\n"
        "| a | b |\n| --- | ---: |\n| **x** | 1 |\n\n![Gains](figures/page_1.svg)\n\n"
        "## Second\n\n    run 'a b' > c\n    stop\n"
    )
    assert (tmp_path / "figures" / "page_1.svg").read_text() == SVG


def test_html_has_them_inside():
    first, second = parts.sections(PAGE)
    assert "<p><b>Few</b> of <code>val</code> &lt; 6.</p>" in first
    assert "<tr><td><b>x</b></td><td>1</td></tr>" in first
    assert "<figure class=chart><svg><g/></svg></figure>" in first
    assert "<pre>run &#x27;a b&#x27; &gt; c\nstop</pre>" in second
