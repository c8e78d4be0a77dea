"""The sentences of a diagnosis. None of them says more than its figures carry.

A verdict stands where the 95 % interval lies on one side of what would be nothing, or so close
around it that the difference would not matter. Where it does neither, the sentence says that it
cannot be told, and with how many items of how many prompts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from jaxrm.evaluate.diagnosis.blind import Blind
from jaxrm.evaluate.diagnosis.calibration import Calibration
from jaxrm.evaluate.diagnosis.cues import Sensitivity
from jaxrm.evaluate.diagnosis.geometry import Geometry
from jaxrm.evaluate.diagnosis.language import Language
from jaxrm.evaluate.diagnosis.length import Length
from jaxrm.evaluate.diagnosis.spread import Spread
from jaxrm.evaluate.estimates import Estimate
from jaxrm.report import tables

POINTS = 0.05
"""Of shares: a difference up to this does not matter."""

DEVIATIONS = 0.1
"""Of rewards, in standard deviations: likewise."""

LOG_ODDS = 0.1
"""Of being right, per doubling of length: likewise. At even odds it is 2.5 points."""

RATIO = 1.25
"""Of temperatures: likewise, either way. At a confidence of 80 % it is five points."""


def told(figure: Estimate, close: float, *, above: str, below: str, near: str, open: str) -> str:
    """The one of four sentences that the interval of a figure allows.

    Args:
      close: how far from 0 the figure may lie for `near`.
      above, below: where all of the interval lies on that side of 0.
      near: where all of it lies within `close` of 0, be it on one side or not.
      open: for all else, and without an interval.
    """
    if -close < figure.low and figure.high < close:
        return near
    if figure.low > 0:
        return above
    return below if figure.high < 0 else open


def length(found: Length) -> str:
    """Whether it likes length, and whether length decides where it is right."""
    slope, odds = found.within_prompt, found.log_odds
    if math.isnan(slope.value):
        return "No two rewarded answers to one prompt differ in length, so that nothing is told."
    goes = f"twice the length goes with {signed(slope)} deviations of reward"
    likes = told(
        slope,
        DEVIATIONS,
        above=f"It likes length: {goes}.",
        below=f"It likes brevity: {goes}.",
        near=f"Length hardly moves the reward: {goes}.",
        open=f"Whether length moves the reward {_untold(slope, 'answers')}: {goes}.",
    )
    right = told(
        odds,
        LOG_ODDS,
        above="It is right more often where the better response is the longer one.",
        below="It is right more often where the better response is the shorter one.",
        near="It is right as often whichever response is the longer one.",
        open=f"Whether it is right more often where the better response is the longer one "
        f"{_untold(odds, 'pairs')}.",
    )
    if math.isnan(found.prefers_longer.value):
        return f"{likes} {right}"
    return (
        f"{likes} It settles for the longer one in {percent(found.prefers_longer)} of pairs, the "
        f"labels do in {percent(found.labels_prefer_longer)}. {right}"
    )


def prompts(found: Blind) -> str:
    """What reading the prompt is worth."""
    points = number(found.lost, ".1f", 100, " points")
    verdict = told(
        found.lost,
        POINTS,
        above=f"reading the prompt is worth {points}.",
        below=f"its own prompt misleads it, by {points}.",
        near=f"it makes next to no use of the prompt, {points}.",
        open=f"whether it makes use of the prompt {_untold(found.lost, 'comparisons')}, {points}.",
    )
    order = ""
    if not math.isnan(found.same_order.value):
        order = f" The order of {percent(found.same_order)} of pairs stays as it was."
    return (
        f"Under another comparison's prompt the model is right in {percent(found.swapped)} of "
        f"comparisons, under the own one in {percent(found.own)}: {verdict}{order}"
    )


def cues(found: Mapping[str, Sensitivity]) -> str:
    """Which cue moves the reward most, of those that can be told to, and which misleads most."""
    moving = {name: cue for name, cue in found.items() if _moves(cue.change)}
    name, cue = strongest(moving or found)
    by = f"{html.escape(name)}, by {signed(cue.change)} deviations"
    if math.isnan(cue.change.value):
        moved = "No answer has a reward with a cue and without it."
    elif moving:
        moved = f"Of the cues that can be told to move the reward, the largest change is of {by}."
    elif all(told_small(each.change) for each in found.values()):
        moved = f"No cue moves the reward by more than {DEVIATIONS} deviations; most does {by}."
    else:
        untold = _untold(cue.change, "answers")
        moved = f"Whether any cue moves the reward {untold}; the largest change is of {by}."
    worst = max(found, key=lambda each: _or_zero(found[each].overturned.value))
    overturned = found[worst].overturned
    if math.isnan(overturned.value):
        return f"{moved} No pair was right, so that none could be overturned."
    pairs = f"the {_items(overturned, 'pairs')} that were right"
    if not overturned.value:
        return f"{moved} On the worse response alone, no cue overturns any of {pairs}."
    return (
        f"{moved} On the worse response alone, {html.escape(worst)} overturns the most: "
        f"{percent(overturned)} of {pairs}."
    )


def calibration(found: Calibration) -> str:
    """Whether it is as sure as it is right, and whether another scale would fit better."""
    gap, fit = found.excess, found.temperature
    if not fit.n:
        return "No pair has rewards."
    manner = told(
        gap,
        POINTS,
        above="The model is too sure",
        below="The model is not sure enough",
        near="On the whole the model is about as sure as it should be",
        open=f"Whether the model is too sure, or not sure enough, {_untold(gap, 'pairs')}",
    )
    return (
        f"{manner}: it trusts the winner that it picks by {percent(found.confidence)} and is "
        f"right in {percent(found.right)} of pairs. {_scale(found)}"
    )


def rewards(found: Spread) -> str:
    """How much of the rewards' spread can tell answers apart."""
    half = found.resolution["bfloat16"]
    parts = ""
    if not math.isnan(found.share_within.value):
        parts = (
            f": {plain(found.within)} within a prompt and {plain(found.between)} from prompt to "
            f"prompt, so that {percent(found.share_within)} of their variance can tell answers "
            "apart"
        )
    tied = "no pair has two"
    if not math.isnan(half.tied.value):
        tied = f"{percent(half.tied)} of {_items(half.tied, 'pairs')} tie"
    return (
        f"The rewards of {found.together.n:,} responses have a deviation of "
        f"{plain(found.together.deviation)}{parts}. Rounded to bfloat16, {tied}."
    )


def states(found: Geometry) -> str:
    """How many directions the states use, and whether it is the model that limits them."""
    size, n = found.size, found.rank.n
    of = f"the model's {size:,}" if n >= size else f"the {n:,} that so many responses can use"
    return (
        f"The states that rewards are read from use {number(found.rank, '.1f')} directions of "
        f"{of}, and their lengths differ by {percent(found.dispersion)} of the mean."
    )


def language(found: Language) -> str:
    """What is left of its ability to write."""
    return (
        f"To a token of the better answers the model gives {number(found.token_logp)} nats, and "
        f"the likelier answer is the better one in {percent(found.by_sum)} of "
        f"{_items(found.by_sum, 'comparisons')}."
    )


def strongest(found: Mapping[str, Sensitivity]) -> tuple[str, Sensitivity]:
    """The cue of the largest mean change seen, up or down."""
    return max(found.items(), key=lambda item: abs(_or_zero(item[1].change.value)))


def told_small(change: Estimate) -> bool:
    """Whether all of the interval of a change says that it does not matter."""
    return change.low > -DEVIATIONS and change.high < DEVIATIONS


def _moves(change: Estimate) -> bool:
    """Whether the interval leaves out 0, and what does not matter is not all that is left."""
    return (change.low > 0 or change.high < 0) and not told_small(change)


def _scale(found: Calibration) -> str:
    fit = found.temperature
    if math.isinf(fit.value):
        return f"No positive scale of the rewards beats a coin on these {_items(fit, 'pairs')}."
    if fit.value == 0:
        return f"None of these {_items(fit, 'pairs')} is wrong, so that no temperature is best."
    takes = (
        f"would take the loss from {found.loss.value:.3f} to {found.loss_scaled:.3f} nats on these "
        "pairs"
    )
    if fit.low > 1 or fit.high < 1:
        return f"Dividing rewards by {number(fit)} fits best and {takes}."
    if fit.low > 1 / RATIO and fit.high < RATIO:
        return f"Another scale hardly fits better: dividing rewards by {number(fit)} {takes}."
    untold = _untold(fit, "pairs")
    return f"Whether another scale fits better {untold}: dividing rewards by {number(fit)} {takes}."


def _untold(figure: Estimate, items: str) -> str:
    return f"cannot be told with {_items(figure, items)}"


def _items(figure: Estimate, items: str) -> str:
    """How many a figure rests on, and of how many prompts; `items` in the plural."""
    noun = items if figure.n != 1 else items.removesuffix("s")
    of = "1 prompt" if figure.prompts == 1 else f"{figure.prompts:,} prompts"
    return f"{figure.n:,} {noun} of {of}"


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


# What a figure looks like


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


def plain(value: float) -> str:
    """A number of no interval."""
    return tables.number(value, ".3g", 1)
