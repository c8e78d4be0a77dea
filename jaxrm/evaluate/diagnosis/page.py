"""The page of a diagnosis: of each subject a sentence, a chart for each source, and the numbers."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxrm.evaluate.diagnosis import charts
from jaxrm.evaluate.estimates import WITHHELD, Estimate
from jaxrm.report import webpage

if TYPE_CHECKING:
    from jaxrm.evaluate.diagnose import Diagnosis

Found = Mapping[str, "Diagnosis"]
"""Diagnoses of one model by name of the source."""


def page(name: str, found: Found, settings: Mapping[str, Any]) -> str:
    """The whole page as HTML.

    Args:
      name: of the model.
      settings: what the figures depend on, shown as it is.
    """
    subtitle = (
        f"A reward model on {', '.join(found)}. In brackets and as bars: 95 % intervals, over "
        f"prompts. {WITHHELD}"
    )
    sections = [
        _glance(found), _length(found), _prompts(found), _cues(found), _calibration(found),
        _rewards(found), _states(found), _language(found), _left_out(found), _settings(settings),
    ]  # fmt: skip
    return webpage.document(f"Diagnosis of {name}", subtitle, sections)


def _glance(found: Found) -> str:
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
    return webpage.section("At a glance", "", _by_source(found, rows))


def _length(found: Found) -> str:
    def says(of: Diagnosis) -> str:
        slope, odds = of.length.within_prompt, of.length.log_odds
        moved = f"Twice the length goes with {signed(slope)} deviations of reward."
        hurt = ""
        if odds.low > 0:
            hurt = " It is right more often where the better response is the longer one."
        elif odds.high < 0:
            hurt = " It is right more often where the better response is the shorter one."
        return (
            f"{moved} It settles for the longer one in {percent(of.length.prefers_longer)} of "
            f"pairs, the labels do in {percent(of.length.labels_prefer_longer)}.{hurt}"
        )

    drawn = (charts.length(s, of.length, _accuracy(of)) for s, of in found.items())
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
        "Length", found, says, webpage.grid(drawn), _by_source(found, rows), _note(note)
    )


def _prompts(found: Found) -> str:
    def says(of: Diagnosis) -> str:
        own, swapped, lost = of.blind.own, of.blind.swapped, of.blind.lost
        points = f"{_shown(100 * lost.value, '.1f')} points {_range(lost, 100, '.1f')}"
        verdict = f"reading the prompt is worth {points}."
        if not lost.low > 0:
            verdict = f"no use of the prompt shows, {points}."
        return (
            f"Under another comparison's prompt the model is right in {percent(swapped)} of "
            f"comparisons, under the own one in {percent(own)}: {verdict} The order of "
            f"{percent(of.blind.same_order)} of pairs stays as it was."
        )

    colors = {"own prompt": charts.MAIN, "another comparison's prompt": charts.OTHER}
    drawn = charts.prompts({source: of.blind for source, of in found.items()})
    note = "Dashed: a coin. Manners and fluency can be told without the prompt; facts hardly."
    parts = webpage.legend(colors), webpage.grid([drawn], wide=True), _note(note)
    return _section("Does it read the prompt?", found, says, *parts)


def _cues(found: Found) -> str:
    def says(of: Diagnosis) -> str:
        most = _strongest(of)
        worst = max(of.cues, key=lambda cue: _or_zero(of.cues[cue].overturned.value))
        return (
            f"The cue that moves the reward most is {_cue(most)}: by "
            f"{signed(of.cues[most].change)} deviations. The one that misleads most is "
            f"{_cue(worst)}: on the worse response alone, it overturns "
            f"{percent(of.cues[worst].overturned)} of the pairs that were right."
        )

    drawn = (charts.cues(source, of.cues) for source, of in found.items())
    note = (
        "The same answer with and without the cue, in standard deviations of the rewards of the "
        "source's responses as they are. Orange: the interval leaves out 0. A cue whose change is "
        "small on average may still move single rewards both ways: see the size of the change. "
        "n: answers."
    )
    tables = [
        webpage.table(
            [html.escape(source), "change", "size", "raises", "overturns", "n"],
            [
                [_cue(cue), number(of.change), number(of.size), percent(of.raises),
                 percent(of.overturned), f"{of.change.n:,}"]
                for cue, of in diagnosis.cues.items()
            ],
        )
        for source, diagnosis in found.items()
    ]  # fmt: skip
    return _section("Cues that say nothing", found, says, webpage.grid(drawn), *tables, _note(note))


def _calibration(found: Found) -> str:
    def says(of: Diagnosis) -> str:
        sure, right, fit = (
            getattr(of.calibration, k) for k in ("confidence", "right", "temperature")
        )
        if math.isinf(fit.value):
            best = "No positive scale of the rewards beats a coin."
        elif fit.value == 0:
            best = "No pair is wrong, so that no temperature is best."
        else:
            best = (
                f"Dividing rewards by {number(fit)} would fit best and take the loss from "
                f"{of.calibration.loss.value:.3f} to {of.calibration.loss_scaled:.3f} nats."
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

    drawn = (charts.reliability(source, of.calibration) for source, of in found.items())
    rows = {
        "expected calibration error": lambda d: percent(d.calibration.error),
        "the same of a calibrated model, by chance": (
            lambda d: f"{_shown(100 * d.calibration.error_if_calibrated, '.1f')} %"
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
        "Calibration", found, says, webpage.grid(drawn), _by_source(found, rows),
        _note(note),
    )  # fmt: skip


def _rewards(found: Found) -> str:
    def says(of: Diagnosis) -> str:
        rewards, half = of.spread, of.spread.resolution["bfloat16"]
        total = rewards.within**2 + rewards.between**2
        share = rewards.within**2 / total if total else math.nan
        return (
            f"Rewards have a deviation of {_shown(rewards.together.deviation, '.3g')}: "
            f"{_shown(rewards.within, '.3g')} within a prompt and {_shown(rewards.between, '.3g')} "
            f"from prompt to prompt, so that {_shown(100 * share, '.0f')} % of their variance can "
            f"tell answers apart. Rounded to bfloat16, {percent(half.tied)} of pairs tie."
        )

    drawn = (
        charts.rewards(source, {"all": of.spread.together, **of.spread.subsets})
        for source, of in found.items()
    )
    rows: dict[str, Callable[[Diagnosis], str]] = {
        "responses": lambda d: f"{d.responses:,}",
        "mean reward": lambda d: _shown(d.spread.together.mean, ".3g"),
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
        "Rewards", found, says, webpage.grid(drawn), _by_source(found, rows), _note(note)
    )


def _states(found: Found) -> str:
    found = {source: of for source, of in found.items() if of.geometry is not None}
    if not found:
        return ""

    def says(of: Diagnosis) -> str:
        states = of.geometry
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
    return _section("Hidden states", found, says, _by_source(found, rows), _note(note))


def _language(found: Found) -> str:
    kept = {source: of for source, of in found.items() if of.language is not None}
    if not kept:
        note = (
            "This model's files hold no language-model head, as those of a plain sequence "
            "classifier, so that nothing can be said of its ability to write."
        )
        return webpage.section("Language ability", note)

    def says(of: Diagnosis) -> str:
        return (
            f"To a token of the better answers the model gives {number(of.language.token_logp)} "
            f"nats, and the likelier answer is the better one in {percent(of.language.by_sum)} of "
            "comparisons."
        )

    rows = {
        "log-prob of a token, nats": lambda d: number(d.language.token_logp, ".3f"),
        "right by summed log-prob": lambda d: percent(d.language.by_sum),
        "right by log-prob per token": lambda d: percent(d.language.by_token),
    }
    return _section("Language ability", kept, says, _by_source(kept, rows))


def _left_out(found: Found) -> str:
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
            lambda d: f"{sum(of.missing for of in d.cues.values()):,}"
        ),
    }
    note = "A reward that is no number is left out of means and is never a win."
    return webpage.section("What was left out", note, _by_source(found, rows))


def _settings(settings: Mapping[str, Any]) -> str:
    text = html.escape(json.dumps(settings, indent=2, ensure_ascii=False))
    body = f"<details><summary>As resolved</summary><pre>{text}</pre></details>"
    return webpage.section("Configuration", "", body)


def _section(title: str, found: Found, says: Callable[[Diagnosis], str], *parts: str) -> str:
    """A section that opens with a sentence on each source, by its name if there are several."""
    several = len(found) > 1
    sentences = (
        (f"<b>{html.escape(source)}</b>: " if several else "") + says(of)
        for source, of in found.items()
    )
    return webpage.section(title, "<br>".join(sentences), *parts)


def _by_source(found: Found, rows: Mapping[str, Callable[[Diagnosis], str]]) -> str:
    head = ["", *map(html.escape, found)]
    body = ([name, *(cell(of) for of in found.values())] for name, cell in rows.items())
    return webpage.table(head, body)


def _note(text: str) -> str:
    return f"<p class=note>{text}</p>"


def _strongest(of: Diagnosis) -> str:
    """The cue of the largest mean change, up or down."""
    return max(of.cues, key=lambda cue: abs(_or_zero(of.cues[cue].change.value)))


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _cue(name: str) -> str:
    return html.escape(name)


def _accuracy(of: Diagnosis) -> float:
    """Over pairs, as the chart's points are; a pair without rewards is not right."""
    known, missing = of.calibration.right.n, of.calibration.missing
    return of.calibration.right.value * known / (known + missing) if known else 0.0


def percent(figure: Estimate) -> str:
    """A share and its interval, in percent."""
    if math.isnan(figure.value):
        return "—"
    return f"{100 * figure.value:.1f} % {_range(figure, 100, '.1f')}".strip()


def number(figure: Estimate, form: str = ".2f") -> str:
    """A figure and its interval."""
    if math.isnan(figure.value):
        return "—"
    return f"{_shown(figure.value, form)} {_range(figure, 1, form)}".strip()


def signed(figure: Estimate) -> str:
    """`number` with its sign."""
    return number(figure, "+.2f")


def _range(figure: Estimate, scale: float, form: str) -> str:
    if math.isnan(figure.low):
        return ""
    return f"({_shown(scale * figure.low, form)} to {_shown(scale * figure.high, form)})"


def _shown(value: float, form: str) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "&minus;∞"
    if math.isnan(value):
        return "—"
    text = format(value, form)
    text = text if float(text) else text.lstrip("+-")
    return text.replace("-", "&minus;")
