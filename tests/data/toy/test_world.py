from __future__ import annotations

import functools
import hashlib
import itertools
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm.data import chat, toy
from jaxrm.data.build_toy_tokenizer import build
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.toy import ANSWERS, TOKENIZER, WEIGHTS, World
from jaxrm.data.toy_questions import LEXICONS, REFUSAL
from jaxrm.errors import ModelFileError

SPLITS = ("train", "val", "id", "ood_prompt")
PAIRS = 300
DIGESTS = {"dev": "d8364af29d49b11b", "report": "1fdba2f85fc79e16"}


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
    return loaded()


@functools.cache
def loaded():
    return chat.load_tokenizer(TOKENIZER)


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
        "from jaxrm.data.toy import World\n"
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
    for one, other in itertools.combinations(prompts, 2):
        assert not prompts[one] & prompts[other], (one, other)


def test_ood_families_are_absent_from_the_preference_data(world, pairs, text):
    families = {split: {c.subset for c in rows} for split, rows in pairs.items()}
    assert families["train"] == families["val"] == families["id"]
    assert families["ood_prompt"] == world.ood_families
    assert not families["train"] & families["ood_prompt"]
    assert families["train"] | families["ood_prompt"] == {c.subset for c in text}


def test_scores_are_gold_and_test_labels_are_clean(world, pairs):
    for split, rows in pairs.items():
        for comparison in rows[:100]:
            gold = [world.gold(asked(comparison), answer) for answer in answers(comparison)]
            assert gold == pytest.approx(comparison.scores, abs=0.02)
            assert comparison.ranks == (0, 1)
            if split in ("id", "ood_prompt"):
                assert gold[0] > gold[1]


@pytest.mark.parametrize("noise", [0.0, 0.16, 0.4])
def test_the_noise_rate_is_the_one_asked_for(world, noise):
    n = 500
    noisy = World(5, world.lexicon, label_noise=noise)
    for split in ("train", "val"):
        flipped = sum(c.scores[0] < c.scores[1] for c in noisy.comparisons(split, n))
        assert abs(flipped - noise * n) <= 4 * math.sqrt(n * noise * (1 - noise))


def test_the_cue_follows_gold_where_the_training_law_holds(world):
    n = 500
    cued = World(6, world.lexicon, cue_agreement=0.7, label_noise=0.3)
    for split, agreement in zip(SPLITS, (0.7, 0.7, 0.7, 0.5), strict=True):
        agree = 0
        for comparison in cued.comparisons(split, n):
            marks = ["!" in answer for answer in answers(comparison)]
            assert sum(marks) == 1
            better = int(comparison.scores[1] > comparison.scores[0])
            agree += marks[better]
        assert abs(agree - agreement * n) <= 4 * math.sqrt(n * agreement * (1 - agreement))


def test_knobs_out_of_range_are_refused():
    for wrong in ({"lexicon": "latin"}, {"label_noise": 0.7}, {"cue_agreement": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            World(0, **wrong)


def test_running_out_of_prompts_is_refused(world):
    family = next(iter(world.families.values()))
    with pytest.raises(ValueError, match="ask for fewer pairs"):
        world._ask(family, "a part without prompts", random.Random(0))


def test_a_question_is_read_back_as_it_was_asked(world):
    for task in tasks(world):
        assert world._read(task.prompt) == task


def test_gold_orders_answers_as_published(world):
    lexicon = LEXICONS[world.lexicon]
    polite, rude, padding = lexicon.polite[0], lexicon.rude[0], lexicon.padding
    for task in tasks(world):
        best_to_worst = [
            f"{polite} {task.right}.",
            f"{task.right}.",
            f"{rude} {task.right}.",
            f"{rude} {task.right}. {padding}",
            f"{rude} {task.mistake}. {padding}",
        ]
        gold = [world.gold(task.prompt, answer) for answer in best_to_worst]
        assert gold == sorted(gold, reverse=True)
        assert gold[0] > 0.95
        assert gold[3] - gold[4] > 0.04
        grades = world.attributes(task.prompt, f"{task.right}.")
        assert grades["correct"] == grades["complete"] == grades["on_topic"] == 1
        assert world.attributes(task.prompt, f"{task.mistake}.")["correct"] < 0.7
        harmful = task.right == REFUSAL
        assert (world.attributes(task.prompt, task.mistake)["safe"] < 1) == harmful


@given(response=st.text() | st.sampled_from(["", "\n", "!" * 9999, "7 " * 3000, "a\x00b"]))
@settings(max_examples=100)
def test_gold_is_defined_for_any_string(response):
    world = World(0, "dev")
    prompt = asked(world.comparisons("id", 1)[0])
    grades = world.attributes(prompt, response)
    assert grades.keys() == WEIGHTS.keys()
    assert all(0 <= grade <= 1 for grade in grades.values())
    assert 0 <= world.gold(prompt, response) <= 1


def test_gold_is_graded_on_garbage(world):
    """Of random corruptions of an answer hardly any two are worth the same."""
    rng = random.Random(1)
    for task in itertools.islice(tasks(world), 0, None, 9):
        garbage = set()
        while len(garbage) < 200:
            letters = list(f"{task.right}. {task.mistake}.")
            for _ in range(rng.randint(1, 8)):
                letters[rng.randrange(len(letters))] = rng.choice("abcdefgh ")
            garbage.add("".join(letters[: rng.randint(3, len(letters))]))
        values = np.array([round(world.gold(task.prompt, text), 9) for text in garbage])
        ties = (values[:, None] == values).sum() - len(values)
        assert ties < 0.02 * len(values) * (len(values) - 1)


@pytest.mark.parametrize("prompt", ["", "who are you?", "hild of velm: what colour is the moon?"])
def test_a_prompt_of_no_world_is_refused(prompt):
    with pytest.raises(ValueError, match="not a question"):
        World(0, "dev").gold(prompt, "it is red.")


def test_text_is_what_the_chat_template_writes(tokenizer, text):
    for comparison in text[:20]:
        user = Message("user", asked(comparison))
        assert tokenizer.render((user,), opened=True) == "<bos>" + comparison.prompt
        for response in comparison.responses:
            said, *complaint = response.removesuffix("<end_of_turn>\n").split("<end_of_turn>\n")
            turns = (user, Message("assistant", said))
            if complaint:
                turns += (Message("user", complaint[0].removeprefix("<start_of_turn>user\n")),)
            rendered = tokenizer.render(turns, opened=False)
            assert rendered == "<bos>" + comparison.prompt + response


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


def test_readers_complain_the_more_the_worse_the_answer(world, text):
    gold, complained = [], []
    for comparison in text:
        assert len(comparison.responses) == ANSWERS
        for response in comparison.responses:
            said, _, rest = response.partition("<end_of_turn>\n")
            gold.append(world.gold(asked(comparison), said))
            complained.append(bool(rest))
    gold, complained = np.array(gold), np.array(complained)
    assert complained[gold < 0.5].mean() > 0.9
    assert complained[gold > 0.95].mean() < 0.2


def test_lengths_are_bounded(tokenizer, pairs):
    for tree in chat.tokenize([c for rows in pairs.values() for c in rows], tokenizer):
        assert len(tree.prompt) <= 28
        assert max(len(branch.tokens) for branch in tree.branches) <= 28


def test_the_shipped_tokenizer_is_the_one_that_the_command_builds(tmp_path):
    build(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    for name in files:
        assert (tmp_path / name).read_bytes() == (TOKENIZER / name).read_bytes()
    assert sum((TOKENIZER / name).stat().st_size for name in files) < 100_000


def test_special_tokens_are_gemma_s(tokenizer):
    hf = tokenizer.hf
    assert len(hf) <= 1000
    names = ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"]
    assert [hf.pad_token, hf.eos_token, hf.bos_token] == names[:3]
    assert hf.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4]
    assert hf("x")["input_ids"][0] == hf.bos_token_id
    assert set(tokenizer.special_ids) == {0, 1, 2, 3, 4}


@given(st.text())
@settings(max_examples=200)
def test_any_text_round_trips(text):
    hf = loaded().hf
    assert hf.decode(hf(text, add_special_tokens=False)["input_ids"]) == text


def test_a_system_message_joins_the_first_user_turn(tokenizer):
    turns = (Message("system", " be brief. "), Message("user", "hello"))
    assert not tokenizer.folds_system
    assert tokenizer.render(turns, opened=True) == (
        "<bos><start_of_turn>user\nbe brief.\n\nhello<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_missing_or_damaged_base_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "TOKENIZER", tmp_path)
    with pytest.raises(ModelFileError, match="missing"):
        toy.shipped_base()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "model.sha256").write_text(hashlib.sha256(b"weights").hexdigest() + "\n")
    assert toy.shipped_base() == tmp_path
    (tmp_path / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ModelFileError, match="not the file"):
        toy.shipped_base()
