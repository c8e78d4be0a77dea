from __future__ import annotations

import hashlib
import itertools
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import ModelFileError
from jaxrm.toy import SPLITS, TOKENIZER, World
from jaxrm.toy import world as drawing
from jaxrm.toy.gold import WEIGHTS, words_of
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.world import ANSWERS

PAIRS = 300
DIGESTS = {"dev": "4134ed76c46226cd", "report": "1bcd1e52a114acfc"}


@pytest.fixture(scope="module", params=list(LEXICONS))
def world(request):
    return World(3, request.param)


@pytest.fixture(scope="module")
def pairs(world):
    return {split: world.comparisons(split, PAIRS) for split in SPLITS}


@pytest.fixture(scope="module")
def text(world):
    return world.pretraining_text(400)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TOKENIZER)


def asked(comparison: Comparison) -> str:
    if isinstance(comparison.prompt, str):
        return comparison.prompt.split("\n")[1].removesuffix("<end_of_turn>")
    return comparison.prompt[0].content


def answers(comparison: Comparison) -> list[str]:
    return [response[-1].content for response in comparison.responses]


def tasks(world: World):
    """Three questions of every family."""
    rng = random.Random(0)
    for family in world.families.values():
        for _ in range(3):
            yield world._ask(family, "test", rng)


def test_another_process_draws_the_same_world(world, pairs, text):
    code = (
        "from jaxrm.toy import World\n"
        f"world = World(3, {world.lexicon!r})\n"
        f"drawn = [world.comparisons(split, 20) for split in {SPLITS}]\n"
        "print(drawn, world.pretraining_text(20))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    here = [pairs[split][:20] for split in SPLITS]
    assert there.stdout == f"{here} {text[:20]}\n"


def test_the_world_is_the_one_that_the_shipped_base_has_read(world, text):
    said = repr([(c.prompt, c.responses) for c in text[:100]])
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == DIGESTS[world.lexicon]


def test_longer_lists_begin_with_shorter_ones(world, pairs, text):
    for split in SPLITS:
        assert world.comparisons(split, 50) == pairs[split][:50]
    assert world.pretraining_text(50) == text[:50]


def test_a_seed_redraws_families_and_pairs(world, pairs):
    other = World(4, world.lexicon)
    assert other.ood_families != world.ood_families
    shared = {asked(c) for c in other.comparisons("train", 200)} & {
        asked(c) for c in pairs["train"]
    }
    assert len(shared) < 100


def test_the_lexicons_share_no_invented_word_and_not_all_families():
    dev, report = LEXICONS.values()
    assert not dev.kinds.keys() & report.kinds.keys()
    assert not set(dev.polite + dev.rude) & set(report.polite + report.rude)
    assert dev.numbers != report.numbers
    families = [set(World(0, name).families) for name in LEXICONS]
    assert min(len(each) for each in families) >= 16
    assert len(families[0] - families[1]) == len(families[1] - families[0]) == 6


def test_no_two_parts_share_a_prompt(world, pairs, text):
    prompts = {split: {asked(c) for c in rows} for split, rows in pairs.items()}
    assert all(len(prompts[split]) == PAIRS for split in SPLITS)
    # The base may have been trained on another seed's text.
    other = World(8, world.lexicon).pretraining_text(200)
    prompts["text"] = {asked(c) for c in text + other}
    # These put the same kind of questions, about other answers.
    tests = {"id", "ood_response", "spurious"}
    for one, other in itertools.combinations(prompts, 2):
        if not {one, other} <= tests:
            assert not prompts[one] & prompts[other], (one, other)


def test_ood_families_are_absent_from_the_preference_data(world, pairs, text):
    families = {split: {c.subset for c in rows} for split, rows in pairs.items()}
    for split in ("val", "id", "ood_response", "spurious"):
        assert families[split] == families["train"]
    assert families["ood_prompt"] == world.ood_families
    assert not families["train"] & families["ood_prompt"]
    assert families["train"] | families["ood_prompt"] == {c.subset for c in text}


def test_scores_are_gold_and_test_labels_are_clean(world, pairs):
    for split, rows in pairs.items():
        for comparison in rows[:100]:
            gold = [world.gold(asked(comparison), answer) for answer in answers(comparison)]
            assert gold == pytest.approx(comparison.scores, abs=0.02)
            assert comparison.ranks == (0, 1)
            if split not in ("train", "val"):
                assert gold[0] > gold[1]


@pytest.mark.parametrize("noise", [0.0, 0.16, 0.4])
def test_the_noise_rate_is_the_one_asked_for(world, noise):
    n = 500
    noisy = World(5, world.lexicon, label_noise=noise)
    for split in ("train", "val"):
        flipped = sum(c.scores[0] < c.scores[1] for c in noisy.comparisons(split, n))
        assert abs(flipped - noise * n) <= 4 * math.sqrt(n * noise * (1 - noise))


@pytest.mark.parametrize("knobs", [{"temperature": 0.2}, {"cue_bias": 0.15}])
def test_annotators_judge_as_their_knobs_say(world, knobs):
    """Given gold and mark, how often each pair's label is wrong follows in closed form."""
    n = 600
    drawn = World(5, world.lexicon, label_noise=0.0, cue_agreement=0.5, **knobs)
    wrong, expected = 0, []
    for comparison in drawn.comparisons("train", n):
        worse = int(comparison.scores[1] < comparison.scores[0])
        wrong += not worse
        gap = abs(comparison.scores[0] - comparison.scores[1])
        marked = "!" in answers(comparison)[worse]
        if "temperature" in knobs:
            expected.append(1 / (1 + math.exp(gap / knobs["temperature"])))
        else:
            # The annotator sees gold with "." only, which the mark's own letter hardly changes.
            expected.append(float(marked and gap < knobs["cue_bias"]))
    p = np.array(expected)
    assert 0.02 < p.mean() < 0.4
    assert abs(wrong - p.sum()) <= 4 * math.sqrt((p * (1 - p)).sum()) + 3


def test_the_cue_follows_gold_where_the_training_law_holds(world):
    n = 500
    cued = World(6, world.lexicon, cue_agreement=0.7, label_noise=0.3)
    agreements = {"ood_prompt": 0.5, "ood_response": 0.5, "spurious": 0.0}
    for split in SPLITS:
        agreement, agree = agreements.get(split, 0.7), 0
        for comparison in cued.comparisons(split, n):
            marks = ["!" in answer for answer in answers(comparison)]
            assert sum(marks) == 1
            better = int(comparison.scores[1] > comparison.scores[0])
            agree += marks[better]
        assert abs(agree - agreement * n) <= 4 * math.sqrt(n * agreement * (1 - agreement))


def test_rankings_of_four_hold_noise_and_cue_pair_by_pair(world):
    n = 300
    drawn = World(7, world.lexicon, label_noise=0.0, cue_agreement=0.9, temperature=0.1)
    agree = wrong = seen = 0
    expected = []
    for comparison in drawn.comparisons("train", n, k=4):
        assert comparison.ranks == (0, 1, 2, 3)
        scores, (marked,) = comparison.scores, np.nonzero(["!" in a for a in answers(comparison)])
        for i, j in itertools.combinations(range(4), 2):
            wrong += scores[i] < scores[j]
            expected.append(1 / (1 + math.exp(abs(scores[i] - scores[j]) / 0.1)))
        for other in set(range(4)) - set(marked):
            agree += scores[marked[0]] > scores[other]
            seen += 1
    assert abs(wrong - sum(expected)) < 5 * math.sqrt(sum(expected))
    # The better of two among four beats 7/9 of the others on average (3, 3, 3, 2, 2, 1 of three),
    # the worse 2/9; the better one has the mark in nine of ten.
    assert agree / seen == pytest.approx(0.9 * 7 / 9 + 0.1 * 2 / 9, abs=0.06)


def test_other_styles_and_lengths_are_those_of_ood_response_alone(world, pairs):
    lexicon = LEXICONS[world.lexicon]
    frame = lexicon.other.frame.format("")
    for split, rows in pairs.items():
        said = [answer for comparison in rows for answer in answers(comparison)]
        assert all((frame in answer) == (split == "ood_response") for answer in said)
    lengths = {
        split: np.mean([len(a) for c in rows for a in answers(c)]) for split, rows in pairs.items()
    }
    assert lengths["ood_response"] > 1.2 * max(
        value for split, value in lengths.items() if split != "ood_response"
    )


def test_several_courtesies_are_in_the_text_and_in_no_comparison(world, pairs, text):
    polite = LEXICONS[world.lexicon].polite

    def courtesies(said: str) -> int:
        return sum(said.count(phrase) for phrase in polite)

    assert all(courtesies(a) <= 1 for rows in pairs.values() for c in rows for a in answers(c))
    flattery = [courtesies(response) > 1 for c in text for response in c.responses]
    assert 0.005 < np.mean(flattery) < 0.03


def test_raters_err_and_leave_out_as_published(world):
    rows = world.comparisons("id", 300)
    rated = world.rated(rows)
    assert world.rated(rows[5:6]) == rated[5:6] or np.isnan(rated[5].attributes).any()
    errors, lengths = [], []
    for comparison in rated:
        for text, ratings in zip(answers(comparison), comparison.attributes, strict=True):
            grades = world.attributes(asked(comparison), text)
            errors.append([r - grades[name] for r, name in zip(ratings, WEIGHTS, strict=True)])
            lengths.append(0.2 * min(len(text) / 80, 1))
    errors = np.array(errors) - np.array(lengths)[:, None]
    assert np.isnan(errors).mean() == pytest.approx(0.3, abs=0.03)
    assert np.nanstd(errors) == pytest.approx(0.1, abs=0.01)
    assert np.nanmean(errors) == pytest.approx(0.0, abs=0.01)


def test_another_weighting_is_another_gold_by_family(world):
    other = World(world.seed, world.lexicon, weighting="by_family")
    rows = world.comparisons("id", 60)
    for comparison in rows:
        prompt, text = asked(comparison), answers(comparison)[0]
        assert other.attributes(prompt, text) == world.attributes(prompt, text)
    golds = [[w.gold(asked(c), answers(c)[1]) for c in rows] for w in (world, other)]
    assert np.abs(np.subtract(*golds)).mean() > 0.02
    assert all(0 <= gold <= 1 for gold in golds[1])


def test_solutions_belong_to_their_part_and_half_are_right(world, text):
    drawn = world.solutions("train", 300)
    assert drawn[:20] == world.solutions("train", 20)
    prompts = {prompt for prompt, _ in drawn}
    assert not prompts & {asked(c) for c in text}
    assert not prompts & {prompt for prompt, _ in world.solutions("test", 300)}
    for prompt, solution in drawn[:20]:
        said = ", ".join(solution.steps)
        assert (world.attributes(prompt, said)["correct"] == 1) == all(solution.labels)
    assert 0.4 < np.mean([solution.outcome for _, solution in drawn]) < 0.6


def test_knobs_out_of_range_are_refused():
    for wrong in (
        {"lexicon": "latin"},
        {"label_noise": 0.7},
        {"cue_agreement": -0.1},
        {"temperature": -1.0},
        {"cue_bias": math.inf},
        {"weighting": "by_mood"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            World(0, **wrong)
    with pytest.raises(ValueError, match="at least 2"):
        World(0).comparisons("id", 1, k=1)


def test_running_out_of_prompts_is_refused(world):
    family = next(iter(world.families.values()))
    with pytest.raises(ValueError, match="ask for fewer pairs"):
        world._ask(family, "a part without prompts", random.Random(0))


def test_a_question_is_read_back_as_it_was_asked(world):
    for task in tasks(world):
        assert world.task(task.prompt) == task


@pytest.mark.parametrize("prompt", ["", "who are you?", "hild of velm: what colour is the moon?"])
def test_a_prompt_of_no_world_is_refused(prompt):
    with pytest.raises(ValueError, match="not a question"):
        World(0, "dev").gold(prompt, "it is red.")


def test_text_is_what_the_chat_template_writes_and_a_note(tokenizer, text):
    for comparison in text[:20]:
        user = Message("user", asked(comparison))
        assert tokenizer.render((user,), opened=True) == "<bos>" + comparison.prompt
        for response in comparison.responses:
            said, note = response.split("<end_of_turn>\n")
            rendered = tokenizer.render((user, Message("assistant", said)), opened=False)
            assert rendered + note == "<bos>" + comparison.prompt + response


def test_text_and_comparisons_are_the_same_tokens(tokenizer, text):
    raw = text[0]
    said = [response.split("<end_of_turn>")[0] for response in raw.responses]
    spoken = Comparison(
        (Message("user", asked(raw)),), tuple((Message("assistant", s),) for s in said)
    )
    from_text, from_messages = chat.tokenize([raw, spoken], tokenizer)
    assert from_text.prompt.tolist() == from_messages.prompt.tolist()
    for one, other in zip(from_text.branches, from_messages.branches, strict=True):
        assert one.tokens[: len(other.tokens)].tolist() == other.tokens.tolist()


def test_readers_blame_the_more_the_worse_the_answer(world, text):
    gold, blamed = [], []
    lexicon = LEXICONS[world.lexicon]
    by_family = dict(zip(world.families, lexicon.reactions, strict=True))
    for comparison in text:
        assert len(comparison.responses) == ANSWERS
        praise, blame = by_family[comparison.subset]
        for response in comparison.responses:
            said, note = response.split("<end_of_turn>\n")
            assert note == f"{praise}." or note.startswith(f"{blame}, ")
            gold.append(world.gold(asked(comparison), said))
            blamed.append(note.startswith(f"{blame}, "))
    gold, blamed = np.array(gold), np.array(blamed)
    assert blamed[gold < 0.5].mean() > 0.9
    assert blamed[gold > 0.95].mean() < 0.2


def test_families_of_readers_share_no_word():
    for lexicon in LEXICONS.values():
        words = [word for pair in lexicon.reactions for word in pair]
        assert len(set(words)) == len(words)
        assert not set(words) & set(words_of(lexicon.manners))
    dev, report = (lexicon.reactions for lexicon in LEXICONS.values())
    assert dev != report


def test_lengths_are_bounded(tokenizer, pairs):
    for rows in pairs.values():
        questions = [tokenizer.hf(asked(c), add_special_tokens=False)["input_ids"] for c in rows]
        assert max(map(len, questions)) <= 28
        for tree in chat.tokenize(rows, tokenizer):
            assert max(len(branch.tokens) for branch in tree.branches) <= 32


def test_a_missing_or_damaged_base_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "TOKENIZER", tmp_path)
    with pytest.raises(ModelFileError, match="missing"):
        toy.shipped_base()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model.sha256").write_text(hashlib.sha256(b"weights").hexdigest() + "\n")
    assert toy.shipped_base() == tmp_path
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ModelFileError, match="not the file"):
        toy.shipped_base()
