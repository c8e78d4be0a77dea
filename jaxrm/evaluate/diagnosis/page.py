"""The page of a diagnosis: of each subject a sentence, a chart for each source, and the numbers."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxrm.evaluate.diagnosis import charts, sentences
from jaxrm.evaluate.diagnosis.sentences import number, percent, plain, strongest
from jaxrm.evaluate.estimates import WITHHELD
from jaxrm.report import tables, webpage

if TYPE_CHECKING:
    from jaxrm.evaluate.diagnose import Diagnosis

Sources = Mapping[str, "Diagnosis"]
"""Diagnoses of one model by name of the source."""


def page(name: str, sources: Sources, settings: Mapping[str, Any]) -> str:
    """The whole page as HTML.

    Args:
      name: of the model.
      settings: what the figures depend on, shown as it is.
    """
    subtitle = (
        f"A reward model on {', '.join(sources)}. In brackets and as bars: 95 % intervals, over "
        f"prompts. {WITHHELD}"
    )
    sections = [
        _glance(sources), _length(sources), _prompts(sources), _cues(sources),
        _calibration(sources), _rewards(sources), _states(sources), _language(sources),
        _left_out(sources), webpage.configuration(settings),
    ]  # fmt: skip
    return webpage.document(f"Diagnosis of {name}", subtitle, sections)


def _glance(sources: Sources) -> str:
    rows = {
        "comparisons that order anything": lambda d: f"{d.accuracy.n:,}",
        "their prompts": lambda d: f"{d.accuracy.prompts:,}",
        "comparisons it gets right": lambda d: percent(d.accuracy),
        "the same under another comparison's prompt": lambda d: percent(d.blind.swapped),
        "pairs in which it prefers the longer response": lambda d: percent(d.length.prefers_longer),
        "pairs in which the labels do": lambda d: percent(d.length.labels_prefer_longer),
        "cue of the largest change": lambda d: html.escape(strongest(d.cues)[0]),
        "by how many deviations": lambda d: number(strongest(d.cues)[1].change),
        "how sure it is of its winners": lambda d: percent(d.calibration.confidence),
        "how often they are the better ones": lambda d: percent(d.calibration.right),
    }
    return webpage.section("At a glance", "", _by_source(sources, rows))


def _length(sources: Sources) -> str:
    drawn = (charts.length(s, d.length, _accuracy(d)) for s, d in sources.items())
    rows = {
        "log-odds of being right, per doubling": lambda d: number(d.length.log_odds),
        "margin at the same label, deviations per doubling": lambda d: number(d.length.margin),
        "reward within a prompt, deviations per doubling": lambda d: number(d.length.within_prompt),
    }
    note = (
        "Each dot is the pairs of about one ratio, the larger the more of them. Dashed: all pairs. "
        "A scorer that length does not touch has a level line. Length is in characters, which all "
        "models share."
    )
    return _section(
        "Length",
        sources,
        lambda d: sentences.length(d.length),
        webpage.grid(drawn),
        _by_source(sources, rows),
        note=note,
    )


def _prompts(sources: Sources) -> str:
    colors = {"own prompt": charts.MAIN, "another comparison's prompt": charts.OTHER}
    drawn = charts.prompts({source: d.blind for source, d in sources.items()})
    note = "Dashed: a coin. Manners and fluency can be told without the prompt; facts hardly."
    parts = webpage.legend(colors), webpage.grid([drawn], wide=True), webpage.note(note)
    return _section(
        "Does it read the prompt?", sources, lambda d: sentences.prompts(d.blind), *parts
    )


def _cues(sources: Sources) -> str:
    drawn = (charts.cues(source, d.cues) for source, d in sources.items())
    note = (
        "The same answer with and without the cue, in standard deviations of the rewards of the "
        "source's responses as they are. Orange: the interval leaves out 0, which of seven cues "
        "that do nothing one does by chance on three pages of ten. A cue whose change is "
        "small on average may still move single rewards both ways: see the size of the change. "
        "n: answers."
    )
    numbers = [
        webpage.table(
            [html.escape(source), "change", "size", "raises", "overturns", "n"],
            [
                [html.escape(name), number(cue.change), number(cue.size), percent(cue.raises),
                 percent(cue.overturned), f"{cue.change.n:,}"]
                for name, cue in d.cues.items()
            ],
        )
        for source, d in sources.items()
    ]  # fmt: skip
    return _section(
        "Cues that say nothing",
        sources,
        lambda d: sentences.cues(d.cues),
        webpage.grid(drawn),
        *numbers,
        note=note,
    )


def _calibration(sources: Sources) -> str:
    drawn = (charts.reliability(source, d.calibration) for source, d in sources.items())
    rows = {
        "expected calibration error": lambda d: percent(d.calibration.error),
        "the same of a calibrated model, by chance": (
            lambda d: f"{tables.number(d.calibration.error_if_calibrated, '.1f')} %"
        ),
        "Brier score": lambda d: number(d.calibration.brier, ".3f"),
        "loss, nats": lambda d: number(d.calibration.loss, ".3f"),
        "best temperature": lambda d: number(d.calibration.temperature),
    }
    note = (
        "Confidence is sigmoid(|margin|), bins have as many pairs each (Guo et al. 2017). On the "
        "dashed line a model is as often right as it is sure. Noisy labels pull all points down."
    )
    return _section(
        "Calibration",
        sources,
        lambda d: sentences.calibration(d.calibration),
        webpage.grid(drawn),
        _by_source(sources, rows),
        note=note,
    )


def _rewards(sources: Sources) -> str:
    drawn = (
        charts.rewards(source, {"all": d.spread.together, **d.spread.subsets})
        for source, d in sources.items()
    )
    rows: dict[str, Callable[[Diagnosis], str]] = {
        "responses": lambda d: f"{d.responses:,}",
        "mean reward": lambda d: plain(d.spread.together.mean),
    }
    for kind in ("float32", "bfloat16"):
        rows |= {
            f"different rewards in {kind}": lambda d, k=kind: (
                f"{d.spread.resolution[k].distinct:,}"
            ),
            f"pairs that tie in {kind}": lambda d, k=kind: percent(d.spread.resolution[k].tied),
            f"margins below the spacing of {kind}": (
                lambda d, k=kind: percent(d.spread.resolution[k].too_close)
            ),
        }
    note = "Thin: percentiles 5 to 95. Thick: 25 to 75. Dot: the median."
    return _section(
        "Rewards",
        sources,
        lambda d: sentences.rewards(d.spread),
        webpage.grid(drawn),
        _by_source(sources, rows),
        note=note,
    )


def _states(sources: Sources) -> str:
    sources = {source: d for source, d in sources.items() if d.geometry is not None}
    if not sources:
        return ""

    rows = {
        "effective rank": lambda d: number(d.geometry.rank, ".1f"),
        "effective rank around the mean": lambda d: number(d.geometry.centred_rank, ".1f"),
        "dimensions": lambda d: f"{d.geometry.size:,}",
        "responses": lambda d: f"{d.geometry.rank.n:,}",
        "mean norm": lambda d: number(d.geometry.norm, ".4g"),
        "dispersion of norms": lambda d: percent(d.geometry.dispersion),
    }
    note = (
        "Effective rank: exp of the entropy of the normalised singular values (Roy and Vetterli "
        "2007). It grows with the number of responses: compare models on the same ones. States "
        "that collapse, or whose norms vary more out of distribution, go with over-optimisation "
        "(Hong et al. 2025, arXiv 2505.07271). The states are those behind the final norm, which "
        "makes their lengths alike but for its gains."
    )
    return _section(
        "Hidden states", sources, lambda d: sentences.states(d.geometry),
        _by_source(sources, rows), note=note,
    )  # fmt: skip


def _language(sources: Sources) -> str:
    kept = {source: d for source, d in sources.items() if d.language is not None}
    if not kept:
        note = (
            "This model's files hold no language-model head, as those of a plain sequence "
            "classifier, so that nothing can be said of its ability to write."
        )
        return webpage.section("Language ability", note)

    rows = {
        "log-prob of a token, nats": lambda d: number(d.language.token_logp, ".3f"),
        "right by summed log-prob": lambda d: percent(d.language.by_sum),
        "right by log-prob per token": lambda d: percent(d.language.by_token),
    }
    return _section(
        "Language ability", kept, lambda d: sentences.language(d.language), _by_source(kept, rows)
    )


def _left_out(sources: Sources) -> str:
    rows = {
        "comparisons": lambda d: f"{d.comparisons:,}",
        "that order nothing": lambda d: f"{d.comparisons - d.accuracy.n:,}",
        "empty responses, scored like others": lambda d: f"{d.spread.empty:,}",
        "pairs left out of length, for an empty response": lambda d: f"{d.length.empty:,}",
        "pairs of one text twice": lambda d: f"{d.spread.same_text:,}",
        "comparisons without another prompt": lambda d: f"{d.blind.left_out:,}",
        "responses without a reward": lambda d: f"{d.spread.missing:,}",
        "pairs without one under swapped prompts": lambda d: f"{d.blind.missing:,}",
        "responses without one under a cue": (
            lambda d: f"{sum(cue.missing for cue in d.cues.values()):,}"
        ),
    }
    note = "A reward that is no number is left out of means and is never a win."
    return webpage.section("What was left out", note, _by_source(sources, rows))


def _section(
    title: str,
    sources: Sources,
    says: Callable[[Diagnosis], str],
    *parts: str,
    note: str = "",
) -> str:
    """A section that opens with a sentence on each source, by its name if there are several."""
    several = len(sources) > 1
    sentences = (
        (f"<b>{html.escape(source)}</b>: " if several else "") + says(d)
        for source, d in sources.items()
    )
    return webpage.section(
        title, "<br>".join(sentences), *parts, webpage.note(note) if note else ""
    )


def _by_source(sources: Sources, rows: Mapping[str, Callable[[Diagnosis], str]]) -> str:
    head = ["", *map(html.escape, sources)]
    body = ([name, *(cell(d) for d in sources.values())] for name, cell in rows.items())
    return webpage.table(head, body)


def _accuracy(d: Diagnosis) -> float:
    """Over pairs, as the chart's points are; a pair without rewards is not right."""
    judged, missing = d.calibration.right.n, d.calibration.missing
    return d.calibration.right.value * judged / (judged + missing) if judged else 0.0
