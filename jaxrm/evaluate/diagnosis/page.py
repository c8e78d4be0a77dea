"""The page of a diagnosis: of each subject a sentence, a chart for each source, and the numbers."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxrm.evaluate.diagnosis import charts
from jaxrm.evaluate.estimates import WITHHELD, Estimate
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
        "comparisons it gets right": lambda d: percent(d.accuracy),
        "the same under another comparison's prompt": lambda d: percent(d.blind.swapped),
        "pairs in which it prefers the longer response": lambda d: percent(d.length.prefers_longer),
        "pairs in which the labels do": lambda d: percent(d.length.labels_prefer_longer),
        "cue that moves the reward most": lambda d: _cue(_strongest(d)),
        "by how many deviations": lambda d: number(d.cues[_strongest(d)].change),
        "how sure it is of its winners": lambda d: percent(d.calibration.confidence),
        "how often they are the better ones": lambda d: percent(d.calibration.right),
    }
    return webpage.section("At a glance", "", _by_source(sources, rows))


def _length(sources: Sources) -> str:
    def says(d: Diagnosis) -> str:
        slope, odds = d.length.within_prompt, d.length.log_odds
        moved = f"Twice the length goes with {signed(slope)} deviations of reward."
        hurt = ""
        if odds.low > 0:
            hurt = " It is right more often where the better response is the longer one."
        elif odds.high < 0:
            hurt = " It is right more often where the better response is the shorter one."
        return (
            f"{moved} It settles for the longer one in {percent(d.length.prefers_longer)} of "
            f"pairs, the labels do in {percent(d.length.labels_prefer_longer)}.{hurt}"
        )

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
        "Length", sources, says, webpage.grid(drawn), _by_source(sources, rows), note=note
    )


def _prompts(sources: Sources) -> str:
    def says(d: Diagnosis) -> str:
        own, swapped, lost = d.blind.own, d.blind.swapped, d.blind.lost
        points = number(lost, ".1f", 100, " points")
        verdict = f"reading the prompt is worth {points}."
        if not lost.low > 0:
            verdict = f"no use of the prompt shows, {points}."
        return (
            f"Under another comparison's prompt the model is right in {percent(swapped)} of "
            f"comparisons, under the own one in {percent(own)}: {verdict} The order of "
            f"{percent(d.blind.same_order)} of pairs stays as it was."
        )

    colors = {"own prompt": charts.MAIN, "another comparison's prompt": charts.OTHER}
    drawn = charts.prompts({source: d.blind for source, d in sources.items()})
    note = "Dashed: a coin. Manners and fluency can be told without the prompt; facts hardly."
    parts = webpage.legend(colors), webpage.grid([drawn], wide=True), webpage.note(note)
    return _section("Does it read the prompt?", sources, says, *parts)


def _cues(sources: Sources) -> str:
    def says(d: Diagnosis) -> str:
        most = _strongest(d)
        worst = max(d.cues, key=lambda cue: _or_zero(d.cues[cue].overturned.value))
        return (
            f"The cue that moves the reward most is {_cue(most)}: by "
            f"{signed(d.cues[most].change)} deviations. The one that misleads most is "
            f"{_cue(worst)}: on the worse response alone, it overturns "
            f"{percent(d.cues[worst].overturned)} of the pairs that were right."
        )

    drawn = (charts.cues(source, d.cues) for source, d in sources.items())
    note = (
        "The same answer with and without the cue, in standard deviations of the rewards of the "
        "source's responses as they are. Orange: the interval leaves out 0. A cue whose change is "
        "small on average may still move single rewards both ways: see the size of the change. "
        "n: answers."
    )
    numbers = [
        webpage.table(
            [html.escape(source), "change", "size", "raises", "overturns", "n"],
            [
                [_cue(name), number(cue.change), number(cue.size), percent(cue.raises),
                 percent(cue.overturned), f"{cue.change.n:,}"]
                for name, cue in d.cues.items()
            ],
        )
        for source, d in sources.items()
    ]  # fmt: skip
    return _section(
        "Cues that say nothing", sources, says, webpage.grid(drawn), *numbers, note=note
    )


def _calibration(sources: Sources) -> str:
    def says(d: Diagnosis) -> str:
        sure, right, fit = (
            getattr(d.calibration, k) for k in ("confidence", "right", "temperature")
        )
        if math.isinf(fit.value):
            best = "No positive scale of the rewards beats a coin."
        elif fit.value == 0:
            best = "No pair is wrong, so that no temperature is best."
        else:
            best = (
                f"Dividing rewards by {number(fit)} would fit best and take the loss from "
                f"{d.calibration.loss.value:.3f} to {d.calibration.loss_scaled:.3f} nats."
            )
        if not fit.n:
            return "No pair has rewards."
        manner = "The model is about as sure as it should be"
        if fit.low > 1:
            manner = "The model is too sure"
        elif fit.high < 1:
            manner = "The model is not sure enough"
        return (
            f"{manner}: it trusts the winner that it picks by {percent(sure)} and is "
            f"right in {percent(right)} of pairs. {best}"
        )

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
        "Calibration", sources, says, webpage.grid(drawn), _by_source(sources, rows), note=note,
    )  # fmt: skip


def _rewards(sources: Sources) -> str:
    def says(d: Diagnosis) -> str:
        rewards, half = d.spread, d.spread.resolution["bfloat16"]
        total = rewards.within**2 + rewards.between**2
        share = rewards.within**2 / total if total else math.nan
        return (
            f"Rewards have a deviation of {_plain(rewards.together.deviation)}: "
            f"{_plain(rewards.within)} within a prompt and {_plain(rewards.between)} "
            f"from prompt to prompt, so that {tables.number(share, '.0f')} % of their variance can "
            f"tell answers apart. Rounded to bfloat16, {percent(half.tied)} of pairs tie."
        )

    drawn = (
        charts.rewards(source, {"all": d.spread.together, **d.spread.subsets})
        for source, d in sources.items()
    )
    rows: dict[str, Callable[[Diagnosis], str]] = {
        "responses": lambda d: f"{d.responses:,}",
        "mean reward": lambda d: _plain(d.spread.together.mean),
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
        "Rewards", sources, says, webpage.grid(drawn), _by_source(sources, rows), note=note
    )


def _states(sources: Sources) -> str:
    sources = {source: d for source, d in sources.items() if d.geometry is not None}
    if not sources:
        return ""

    def says(d: Diagnosis) -> str:
        states = d.geometry
        return (
            f"The states that rewards are read from use {number(states.rank, '.1f')} of "
            f"{min(states.size, states.rank.n)} possible directions, and their lengths differ by "
            f"{percent(states.dispersion)} of the mean."
        )

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
    return _section("Hidden states", sources, says, _by_source(sources, rows), note=note)


def _language(sources: Sources) -> str:
    kept = {source: d for source, d in sources.items() if d.language is not None}
    if not kept:
        note = (
            "This model's files hold no language-model head, as those of a plain sequence "
            "classifier, so that nothing can be said of its ability to write."
        )
        return webpage.section("Language ability", note)

    def says(d: Diagnosis) -> str:
        return (
            f"To a token of the better answers the model gives {number(d.language.token_logp)} "
            f"nats, and the likelier answer is the better one in {percent(d.language.by_sum)} of "
            "comparisons."
        )

    rows = {
        "log-prob of a token, nats": lambda d: number(d.language.token_logp, ".3f"),
        "right by summed log-prob": lambda d: percent(d.language.by_sum),
        "right by log-prob per token": lambda d: percent(d.language.by_token),
    }
    return _section("Language ability", kept, says, _by_source(kept, rows))


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


def _plain(value: float) -> str:
    """A number of no interval."""
    return tables.number(value, ".3g", 1)


def _strongest(d: Diagnosis) -> str:
    """The cue of the largest mean change, up or down."""
    return max(d.cues, key=lambda cue: abs(_or_zero(d.cues[cue].change.value)))


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _cue(name: str) -> str:
    return html.escape(name)


def _accuracy(d: Diagnosis) -> float:
    """Over pairs, as the chart's points are; a pair without rewards is not right."""
    judged, missing = d.calibration.right.n, d.calibration.missing
    return d.calibration.right.value * judged / (judged + missing) if judged else 0.0


def percent(figure: Estimate) -> str:
    """A share and its interval, in percent."""
    return number(figure, ".1f", 100, " %")


def number(figure: Estimate, form: str = ".2f", scale: float = 1, unit: str = "") -> str:
    """A figure and its interval."""
    if math.isnan(figure.value):
        return "—"
    bounds = tables.between(figure.low, figure.high, form, scale)
    shown = "" if bounds == "—" else f" ({bounds})"
    return f"{tables.number(figure.value, form, scale)}{unit}{shown}"


def signed(figure: Estimate) -> str:
    """`number` with its sign."""
    return number(figure, "+.2f")
