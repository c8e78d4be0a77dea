"""One page about the GRM study, from the records of its runs: verdicts, tables and figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxrm import files
from jaxrm.study import sections
from jaxrm.study.records import CONDITIONS, Choices, Condition, Record, read

HEADER = """\
# GRM against its controls on the toy world

Made from the records of `python -m experiments.study_grm --confirm`, by the rules of
`docs/preregistration_grm.md`; how the numbers read is in `docs/grm.md`, and what the base itself
knows (its own ranking, a linear probe) in `docs/toyworld.md`. Accuracy is strict (a tie is no win)
and family-macro: the mean over families of questions. ± is one standard error over seeds; each seed
redraws families, pairs, head, order and items."""


def write(
    records: Sequence[Record],
    choices: Choices,
    page: Path,
    figures: Path,
    conditions: Mapping[str, Condition] = CONDITIONS,
) -> None:
    """Writes the page as Markdown and its figures as SVG files, the same for the same records.

    Args:
      records: of all runs but the screen's, in any order.
      choices: the screen's.
      page: the Markdown file.
      figures: the directory of the SVG files, which the page names relative to itself.
      conditions: those of the part main by name, the main one first.

    Raises:
      DataError: as `read` does, and where curves of one arm have different numbers of points.
    """
    study = read(records, choices, conditions)
    main = study.conditions[study.main]
    content = [
        sections.verdicts(study),
        *(sections.condition_tables(study, name) for name in conditions),
        sections.forest(study, main),
        sections.mechanism(study, main),
        sections.sizes(study, main),
        sections.curves(study),
        sections.strengths(study, main),
        sections.heads(study, main),
        sections.frozen(study, main),
        sections.screen(choices),
        sections.inventory(study, records),
    ]
    folder = Path(os.path.relpath(figures, page.parent)).as_posix()
    for chart in (section.chart for section in content if section.chart):
        with files.replacing(figures / f"{chart.name}.svg") as draft:
            draft.write_text(chart.svg, "utf-8")
    text = "\n\n".join([HEADER, *(section.markdown(folder) for section in content)]) + "\n"
    with files.replacing(page) as draft:
        draft.write_text(text, "utf-8")
