"""The page about the toy world: its tables hold what was measured, and a broken rule shows."""

import dataclasses
import re

import numpy as np
import pytest

from experiments import toy_world
from experiments.toy_world import Config, Reading
from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError, OptionError
from jaxrm.toy import SPLITS, World, samples
from jaxrm.toy.gold import WEIGHTS
from tests.methods.small_base import small_base

ITEMS = 60


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """A run with a small random base."""
    folder = tmp_path_factory.mktemp("toy_world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_world, "GARBAGE", 50)
        yield Config(
            base=small_base(folder), out=folder / "page.md", items=ITEMS, seeds=1, documents=100
        )


@pytest.fixture(scope="module")
def measured(cfg):
    return toy_world.measure(cfg)


@pytest.fixture(scope="module")
def text(measured):
    return toy_world.page(measured)


def cells(text, title, first):
    """The other cells of the row that begins with `first`, in the section of that title."""
    section = re.split(r"^##+ ", text.partition(f"# {title}\n")[2], flags=re.MULTILINE)[0]
    (row,) = [line for line in section.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.split("|")[2:-1]]


def percent(right, comparisons):
    """Of whether each comparison is right, the mean over families of their means."""
    by_family = {}
    for holds, comparison in zip(right, comparisons, strict=True):
        by_family.setdefault(comparison.subset, []).append(holds)
    return f"{100 * np.mean([np.mean(found) for found in by_family.values()]):.1f}"


@pytest.mark.parametrize("split", SPLITS)
def test_the_table_by_split_holds_what_was_measured(measured, text, split):
    reading = measured.drawn[0][split]
    rows, labelled = reading.comparisons, split in toy_world.LABELLED
    assert rows == World(0).comparisons(split, ITEMS)
    first = np.array([c.scores[0] > c.scores[1] for c in rows])
    likelier = np.array([logps[0] > logps[1] for logps in reading.logps])
    sizes = np.array([[len(response[0].content) for response in c.responses] for c in rows])
    better, worse = np.where(first[:, None], sizes, sizes[:, ::-1]).T
    likelihood, of_labels, *linear, longer, shorter = cells(text, "By split", f"`{split}`")
    assert likelihood == percent(likelier == first, rows)
    assert of_labels == (percent(likelier, rows) if labelled else "")
    assert (longer, shorter) == (percent(better > worse, rows), percent(better < worse, rows))
    assert [bool(figure) for figure in linear] == [not labelled] * 3


def test_the_table_by_family_has_every_family_where_the_seed_has_it(measured, text):
    world, reading = measured.world, measured.drawn[0]["ood_prompt"]
    for family in world.families:
        figures = cells(text, "By family", family)
        ood = family in world.ood_families
        assert [bool(figure) for figure in figures] == [ood, ood, not ood, not ood]
        if ood:
            places = [i for i, c in enumerate(reading.comparisons) if c.subset == family]
            p = np.mean([reading.logps[i][0] > reading.logps[i][1] for i in places])
            error = np.sqrt(p * (1 - p) / len(places))
            assert figures[0] == f"{100 * p:.1f} ± {100 * error:.1f}"


def pairs(values, flipped=()):
    """A reading of pairs of gold 1 and 0 with these states of one dimension, some mislabelled."""
    prompt = (Message("user", "?"),)
    comparisons = [
        Comparison.pair(prompt, "a", "bb", scores=(0.0, 1.0) if i in flipped else (1.0, 0.0))
        for i in range(len(values))
    ]
    logps = np.array([[0.0, -1.0]] * len(values))
    return Reading(comparisons, logps, np.array(values, np.float32)[..., None])


def test_each_figure_is_fitted_to_its_own_labels_and_graded_by_gold():
    """States: 1 for the better of `id` by gold and 0 for the other, the reverse in `train`."""
    clean, reverse = pairs([(1, 0)] * 4), pairs([(0, 1)] * 4)
    mixed = pairs([(1, 0), (1, 0), (0, 1), (1, 0)])
    drawn = {"id": mixed, "train": reverse, "other id": clean}
    assert toy_world.accuracy(drawn, "probe", "id") == 0.75
    assert toy_world.accuracy(drawn, "probe of `train`", "id") == 0.25
    assert toy_world.accuracy(drawn, "longer", "id") == 0
    assert toy_world.accuracy(drawn, "shorter", "id") == 1
    assert toy_world.accuracy(drawn, "words", "id") == 1
    noisy = {"val": pairs([(1, 0)] * 4, flipped=[1])}
    assert toy_world.accuracy(noisy, "likelihood", "val") == 0.75
    assert toy_world.accuracy(noisy, "against labels", "val") == 1


def test_labels_are_counted_as_they_were_drawn(text):
    drawn = World(0, label_noise=0.25, cue_agreement=0.5).comparisons("train", ITEMS)
    wrong = sum(c.scores[0] < c.scores[1] for c in drawn)
    marked = sum("!" in c.responses[0][0].content for c in drawn)
    assert wrong
    assert cells(text, "Labels", "`label_noise=0.25`") == [
        f"{100 * count / ITEMS:.1f}" for count in (wrong, marked)
    ]
    assert cells(text, "Labels", "`label_noise=0`")[0] == "0.0"
    assert cells(text, "Labels", "`spurious`") == ["0.0"] * 3
    low, middle, high = (float(cell) for cell in cells(text, "Labels", "`train`"))
    assert low < middle < high


def test_rules_show_their_figure_and_whether_it_is_met(measured, text):
    leak = "prompts of `train` in any other split"
    assert cells(text, "Design rules", "families of questions") == ["at least 16", "19", "met"]
    assert cells(text, "Design rules", leak) == ["0", "0", "met"]

    (drawn,) = measured.drawn
    leaked = drawn | {"id": drawn["train"]}
    text_too = [*measured.text, drawn["val"].comparisons[0]]
    broken = dataclasses.replace(measured, longest=29, drawn=[leaked], text=text_too)
    rules = f"## Rules\n{toy_world.rules(broken)}"
    not_met = "**not met**"
    assert cells(rules, "Rules", "tokens of the longest question") == ["at most 28", "29", not_met]
    assert cells(rules, "Rules", leak) == ["0", str(ITEMS), not_met]
    of_text = "prompts of the pretraining text in any split"
    assert cells(rules, "Rules", of_text) == ["0", "1", not_met]


def test_all_splits_keep_within_the_bounds_or_the_rule_is_not_met():
    kept = toy_world.within((0.55, 0.7), {"id": 0.6, "val": 0.55, "train": 0.7})
    assert kept == ("55 to 70", "55.0 (`val`) to 70.0 (`train`)", True)
    assert not toy_world.within((0.55, 0.7), {"id": 0.6, "val": 0.549})[2]
    assert not toy_world.within((0.55, 0.7), {"id": 0.6, "val": 0.701})[2]


def test_a_gold_that_grades_garbage_alike_is_found_out(monkeypatch):
    assert toy_world.garbage_ties(World(0)) < 0.5
    monkeypatch.setattr(World, "gold", lambda self, prompt, response: 0.0)
    assert toy_world.garbage_ties(World(0)) == 1


def test_samples_are_the_world_s_and_marked(measured, text):
    world = measured.world
    for comparison in samples.one_of_each(world):
        shown = cells(text, "Families", comparison.subset)
        assert shown[0] == f"`{samples.question(comparison)}`"
        assert shown[2] == f"{comparison.scores[0]:.2f}"
    assert "noisy label" in text
    assert len(cells(text, "Gold", "weight")) == len(WEIGHTS)
    garbage = cells(text, "Gold", "`gggg`")[-1]
    asked = samples.question(world.comparisons("id", 1)[0])
    assert garbage == f"**{world.gold(asked, 'gggg'):.3f}**"
    assert measured.text[0].responses[0] in text


def test_the_page_is_written_and_always_the_same(cfg, measured, text):
    toy_world.main(cfg)
    assert cfg.out.read_text("utf-8") == text
    two = dataclasses.replace(measured, drawn=[*measured.drawn, *measured.drawn])
    one = cells(text, "By split", "`id`")[0]
    assert cells(f"## Two\n{toy_world.by_split(two)}", "Two", "`id`")[0] == f"{one} ± 0.0"


def test_options_out_of_range_are_refused(cfg):
    with pytest.raises(OptionError, match="--items must be at least 1, not 0"):
        Config(items=0)
    with pytest.raises(OptionError, match="name one with --base"):
        Config(lexicon="dev")
    with pytest.raises(DataError, match="is a directory"):
        toy_world.main(dataclasses.replace(cfg, out=cfg.out.parent))
