"""Copies and near copies of evaluation prompts are found, and what all prompts share is not."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.audit import overlap
from jaxrm.data.audit.overlap import Corpus, near_pairs, passage_pairs, words
from jaxrm.data.comparison import Comparison, Message

QUESTIONS = [
    "How do volcanoes form, and why do some of them erupt without any warning?",
    "Write a short poem about a lighthouse keeper who is afraid of the dark.",
    "What is the difference between a violin and a viola in an orchestra?",
    "My sourdough bread never rises in winter. What am I doing wrong with it?",
    "Explain to a child why the moon changes its shape during the month.",
    "Which documents does a landlord need before letting out a furnished flat?",
]
NEAR_COPY = "how do VOLCANOES form and why do some of these erupt without any warning"
TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request, in the language of the request, without repeating it. ### Instruction: {} "
    "### Response:"
)


def row(prompt, name="row", chosen="yes", rejected="no", system=None):
    """A pair; a list is a conversation that begins with the user."""
    if isinstance(prompt, list):
        roles = itertools.cycle(("user", "assistant"))
        prompt = [Message(role, text) for role, text in zip(roles, prompt, strict=False)]
    else:
        prompt = [Message("user", prompt)]
    prompt = [*([Message("system", system)] if system else []), *prompt]
    return Comparison.pair(prompt, chosen, rejected, id=name)


def corpus(prompts, name):
    return Corpus([row(prompt, f"{name}/{i}") for i, prompt in enumerate(prompts)])


def found(evaluation, source):
    """(kind, evaluation row, source row) of every match."""
    matches = overlap.overlap(corpus(evaluation, "e"), corpus(source, "s")).matches
    return [(m.kind, int(m.evaluation[2:]), int(m.source[2:])) for m in matches]


def test_words_are_case_folded_letters_and_digits():
    assert words("Don't  STOP: the ﬁre_alarm (x^2)!") == [
        "don",
        "t",
        "stop",
        "the",
        "fire",
        "alarm",
        "x",
        "2",
    ]
    assert words("Straße 12,5 ") == ["strasse", "12", "5"]
    assert words("你好 GPT4吗") == ["你", "好", "gpt4", "吗"]
    assert words("?!") == []


def test_a_planted_near_copy_is_found_among_other_prompts():
    assert found([NEAR_COPY, *QUESTIONS[1:3]], [*QUESTIONS[3:], QUESTIONS[0]]) == [("near", 0, 3)]


def test_the_same_words_are_the_same_prompt_whatever_the_system_message_says():
    source = Corpus([row(question, f"s/{i}") for i, question in enumerate(QUESTIONS)])
    copy = row(QUESTIONS[4].upper().replace(" ", "\n"), "e", system="Answer like a pirate.")
    evaluation = Corpus([copy, row("Who painted the ceiling of the Sistine Chapel?", "other")])
    result = overlap.overlap(evaluation, source)
    (match,) = result.matches
    assert (match.kind, match.similarity) == ("same", 1)
    assert (match.evaluation, match.source) == ("e", "s/4")
    assert match.source_text.startswith("explain to a child why the moon")
    assert (result.prompts, result.touched, len(result.copies)) == (2, ("e",), 1)


def test_a_template_around_every_prompt_makes_no_copies_and_hides_none():
    dressed = [TEMPLATE.format(question) for question in QUESTIONS * 4]
    dressed = [f"{text} {i // 6}" for i, text in enumerate(dressed)]
    evaluation = [TEMPLATE.format(text) for text in (NEAR_COPY, "Name three prime numbers.")]
    evaluation += [TEMPLATE.format(f"Translate {word} into Latin") for word in "abcdefghijkl"]
    assert found(evaluation, [*dressed[1:6], *dressed[7:12]]) == []
    assert found(evaluation, dressed[:6]) == [("near", 0, 0)]


def test_a_template_around_the_evaluation_prompts_alone_hides_no_copy():
    fill = [f"Describe the {a}{b} of ships" for a, b in itertools.product("abcdefgh", "uvwxyz")]
    evaluation = [TEMPLATE.format(text) for text in (NEAR_COPY, *fill)]
    assert found(evaluation, QUESTIONS) == [("near", 0, 0)]


def test_shared_system_messages_are_no_copies():
    system = "You are a careful assistant who never makes anything up and cites every source."
    halves = (QUESTIONS[:3], QUESTIONS[3:])
    ours, theirs = (Corpus([row(q, q, system=system) for q in half]) for half in halves)
    assert overlap.overlap(ours, theirs).matches == ()


def test_the_last_user_turn_counts_by_itself_if_it_is_long_enough():
    before = ["Good morning!", "Hello, what can I do for you?"]
    source = [[*before, QUESTIONS[0]], QUESTIONS[1], [*before, "Yes, please."]]
    assert found([NEAR_COPY, QUESTIONS[2]], source) == [("near", 0, 0)]
    assert found([QUESTIONS[0], QUESTIONS[2]], source) == [("same", 0, 0)]
    assert found([["Shall we?", "If you like.", "Yes, please."]], source) == []


def test_a_quoted_passage_is_found_from_thirteen_words_on():
    thirteen = " ".join(words(QUESTIONS[0])[:13])
    shorter = " ".join(words(QUESTIONS[0])[:12])
    around = "somebody asked me this yesterday {} and then walked away before I could even answer"
    assert found([around.format(thirteen)], QUESTIONS) == [("passage", 0, 0)]
    assert found([around.format(shorter)], QUESTIONS) == []


def test_the_similarity_of_a_passage_is_the_share_of_the_evaluation_prompts_n_grams():
    text = " ".join(f"w{i}" for i in range(20))  # 8 n-grams of 13 words
    part = " ".join(f"w{i}" for i in range(5, 19))  # 2 of them
    assert list(passage_pairs([text], ["a b", part])) == [(0, 1, 2 / 8)]
    assert list(passage_pairs([part], [text])) == [(0, 0, 1)]
    assert list(passage_pairs([part], [])) == list(passage_pairs(["a"], ["b"])) == []


def test_an_n_gram_of_more_than_ten_prompts_is_boilerplate():
    passage = " ".join(f"w{i}" for i in range(13))
    ten = [f"{passage} x{i}" for i in range(10)]
    # The n-gram that ends in the prompt's own word is shared with no other.
    assert len(list(passage_pairs([passage], ten))) == 10
    assert list(passage_pairs([passage], [*ten, f"{passage} x10"])) == []
    assert list(passage_pairs([*ten, f"{passage} x10"], [passage])) == []


def test_a_word_weighs_its_inverse_document_frequency():
    source = ["the cat sat", "the dog sat", "the end"]
    evaluation = ["the cat slept", "the end came"]
    # Documents: 2 and 3. "the" is in all of both; "cat", "end" in one of each.
    the, one = math.log(3 / 2), min(math.log(3 / 1), math.log(4 / 1))
    the = min(the / 1, math.log(3 / 2), math.log(4 / 3))
    sat, slept = math.log(4 / 2), one
    cats = (the + one) / (the + one + sat + slept)
    ends = (the + one) / (the + one + one)
    pairs = {(i, j): similarity for i, j, similarity in near_pairs(evaluation, source, 0.3)}
    assert pairs == {(0, 0): pytest.approx(cats), (1, 2): pytest.approx(ends)}


DOCUMENTS = st.lists(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6).map(" ".join),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(DOCUMENTS, DOCUMENTS, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_prefixes_lose_no_pair(evaluation, source, threshold):
    sets = [[set(text.split()) for text in part] for part in (evaluation, source)]
    every = set().union(*itertools.chain(*sets))
    weight = {
        word: min(
            math.log((len(part) + 1) / max(sum(word in text for text in part), 1)) for part in sets
        )
        for word in every
    }
    similarity = {
        (i, j): sum(weight[w] for w in a & b) / sum(weight[w] for w in a | b)
        for (i, a), (j, b) in itertools.product(*map(enumerate, sets))
    }
    near = {(i, j): value for i, j, value in near_pairs(evaluation, source, threshold)}
    for pair, value in similarity.items():
        if abs(value - threshold) > 1e-9:
            assert (pair in near) == (value > threshold)
        if pair in near:
            assert near[pair] == pytest.approx(value)


def test_each_prompt_is_filed_once_under_its_strongest_match():
    source = [
        NEAR_COPY,
        QUESTIONS[0],
        f"He said: {QUESTIONS[0]} And so on and on it went",
        *QUESTIONS[2:],
    ]
    matches = overlap.overlap(
        Corpus([row(QUESTIONS[0], "e/0"), row(QUESTIONS[0], "e/1"), row(QUESTIONS[1], "e/2")]),
        corpus(source, "s"),
    )
    assert [(m.kind, m.source) for m in matches.matches] == [("same", "s/1")]
    assert (matches.prompts, matches.touched) == (2, ("e/0", "e/1"))
    assert [copy.source for copy in matches.copies] == ["s/0", "s/1"]


def test_matches_are_listed_by_kind_and_the_most_similar_first():
    quoted = "somebody asked me this {} and then they simply walked away for the whole long day"
    evaluation = [quoted.format(QUESTIONS[1]), NEAR_COPY, QUESTIONS[2], f"{QUESTIONS[3]} Why?"]
    matches = overlap.overlap(corpus(evaluation, "e"), corpus(QUESTIONS, "s")).matches
    assert [m.kind for m in matches] == ["same", "near", "near", "passage"]
    assert matches[1].similarity > matches[2].similarity


def test_a_copy_names_the_evaluation_prompt_that_is_most_like_it():
    source = [row(NEAR_COPY, "s/0"), row(QUESTIONS[1], "s/1"), row(QUESTIONS[0], "s/2")]
    source += [row(NEAR_COPY.upper(), "s/3"), row(f"He said: {QUESTIONS[2]} And left.", "s/4")]
    evaluation = corpus([QUESTIONS[3], QUESTIONS[0], NEAR_COPY, QUESTIONS[2]], "e")
    copies = overlap.overlap(evaluation, Corpus(source)).copies
    assert [(copy.place, copy.source, copy.kind, copy.evaluation) for copy in copies] == [
        (0, "s/0", "same", "e/2"),
        (2, "s/2", "same", "e/1"),
        (3, "s/3", "same", "e/2"),
    ]
    (near,) = overlap.overlap(corpus([QUESTIONS[0]], "e"), Corpus(source[:2])).copies
    assert (near.place, near.kind, near.evaluation) == (0, "near", "e/0")
    assert 0.8 <= near.similarity < 1


def test_prompts_without_words_are_counted_and_compared_with_nothing():
    result = overlap.overlap(corpus(["???", "!", QUESTIONS[0]], "e"), corpus(["...", "?"], "s"))
    assert (result.prompts, result.wordless, result.matches) == (1, 2, ())


def test_raw_text_is_compared_too():
    raw = Comparison.pair(f"Human: {QUESTIONS[0]}\n\nAssistant:", "a", "b", id="raw")
    result = overlap.overlap(Corpus([raw, row("Something else")]), corpus(QUESTIONS, "s"))
    assert [(m.kind, m.source) for m in result.matches] == [("near", "s/0")]


def test_long_enough_responses_that_the_source_has_are_counted():
    answer = "Nobody knows for sure, but there are two theories."
    source = Corpus([row("a", chosen=answer, rejected="Yes."), row("b", rejected="I do not know.")])
    evaluation = Corpus(
        [row("c", chosen=answer.upper(), rejected="Yes."), row("d", rejected=answer)]
    )
    other = Corpus([row("e", rejected="one two three four five six seven eight")])
    assert len(evaluation.responses) == overlap.overlap(evaluation, source).shared_responses == 1
    assert (len(other.responses), overlap.overlap(other, source).shared_responses) == (1, 0)
