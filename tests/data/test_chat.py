"""Token trees hold exactly the ids of the template's whole rendering, cut in the right places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison, Message, Step, join_steps
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import DataError, TokenizerError
from tests.shared_data import shared

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)
BOS, EOS, TURN, END = range(4)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Bytes, four special tokens, and merges that reach over the seam of prompt and response."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ċ"), ("l", "Ċ"), ("h", "i"), ("Ċ", "hi")]
    words = [*alphabet, *(a + b for a, b in merges)]
    specials = ["<bos>", "<eos>", "<turn>", "<end>"]
    vocabulary = {word: i for i, word in enumerate([*specials, *words])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    hf = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", chat_template=GEMMA
    )
    path = tmp_path_factory.mktemp("tokenizer")
    ChatTokenizer(hf).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory):
    return load_tokenizer(directory)


@pytest.fixture(scope="module")
def chatml(directory, tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "chatml.jinja"
    path.write_text(CHATML, "utf-8")
    return load_tokenizer(directory, path)


def user(text):
    return Message("user", text)


def says(text):
    return Message("assistant", text)


def whole(tokenizer, messages):
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return list(tokenizer.hf.apply_chat_template(turns, tokenize=True, return_dict=False))


def tree_of(tokenizer, comparison):
    (tree,) = chat.tokenize([comparison], tokenizer)
    return tree


def asked(tokenizer, tree, k=0):
    branch = tree.branches[k]
    return tokenizer.hf.decode(branch.tokens[branch.targets])


def assert_is_whole(tokenizer, comparison, tree):
    for response, branch in zip(comparison.responses, tree.branches, strict=True):
        joined = [*tree.prompt.tolist(), *branch.tokens.tolist()]
        assert joined == whole(tokenizer, comparison.prompt + response)
        assert len(branch.tokens) == len(branch.targets) > 0
        assert branch.tokens.dtype == tree.prompt.dtype == np.int32


def test_a_tree_by_hand(tokenizer):
    tree = tree_of(tokenizer, Comparison.pair([user("a")], "yo", "no", margin=2.0))
    assert tokenizer.hf.decode(tree.prompt) == "<bos><turn>user\na<end>\n<turn>model\n"
    assert [tokenizer.hf.decode(b.tokens) for b in tree.branches] == ["yo<end>\n", "no<end>\n"]
    assert asked(tokenizer, tree) == "yo<end>"
    assert (tree.ranks, tree.columns["margin"]) == ((0, 1), 2.0)


def test_labels_come_along(tokenizer):
    labels = {"ranks": (1, 0), "scores": (0.5, 2.0), "attributes": ((1.0,), (2.0,))}
    responses = ((says("x"),), (says("y"),))
    tree = tree_of(tokenizer, Comparison((user("a"),), responses, **labels))
    assert (tree.ranks, tree.attributes) == (labels["ranks"], labels["attributes"])
    assert {name: values.tolist() for name, values in tree.columns.items()} == {
        "response_score": [0.5, 2.0]
    }


def read_at_steps(tokenizer, tree, k=0):
    """Of each step, the text from the prompt to the token that its score is read at."""
    branch = tree.branches[k]
    return [tokenizer.hf.decode(branch.tokens[: end + 1]) for end in branch.step_ends]


def test_a_step_ends_with_the_token_that_covers_its_last_character(tokenizer, chatml):
    text, steps = join_steps(["a b", "hi", "é"], [1.0, float("nan"), 0.5])
    assert text == "a b\nhi\né"
    for each in (tokenizer, chatml):
        comparison = Comparison((user("q"),), ((says(text),), (says("x"),)), steps=(steps, ()))
        tree = tree_of(each, comparison)
        # "\nhi" is one token here, and "é" are two, of which the second is the last.
        assert read_at_steps(each, tree) == ["a b", "a b\nhi", "a b\nhi\né"]
        np.testing.assert_array_equal(tree.branches[0].step_labels, [1, np.nan, 0.5])
        assert len(tree.branches[1].step_ends) == len(tree.branches[1].step_labels) == 0
    raw = tree_of(tokenizer, Comparison("q\n", (text,), steps=(steps,)))
    assert read_at_steps(tokenizer, raw) == ["a b", "a b\nhi", "a b\nhi\né"]


def test_a_token_over_the_end_of_a_step_belongs_to_it(tokenizer):
    # "l\n" is one token: the first step's, whose last character it covers.
    text, steps = join_steps(["al", "b"], [1.0, 0.0])
    tree = tree_of(tokenizer, Comparison((user("q"),), ((says(text),),), steps=(steps,)))
    assert read_at_steps(tokenizer, tree) == ["al\n", "al\nb"]


def test_steps_are_found_in_what_a_template_trims(tokenizer, chatml):
    # This template leaves white space out at both ends, where the last step ends here.
    text = "  hi b \n"
    comparison = Comparison((user("hi b"),), ((says(text),),), steps=((Step(4, 1.0), Step(8)),))
    assert read_at_steps(tokenizer, tree_of(tokenizer, comparison)) == ["hi", "hi b"]
    assert read_at_steps(chatml, tree_of(chatml, comparison)) == ["  hi", "  hi b \n"]
    blank = Comparison(
        (user("q"),), ((says(text),),), steps=((Step(2, 1.0), Step(4)),), where="a, row 7"
    )
    with pytest.raises(DataError, match=r"a, row 7: field 'steps\[0\]': .* cannot be found"):
        tree_of(tokenizer, blank)


def test_steps_lie_in_the_last_message_of_a_response(chatml):
    response = (says("b"), user("b?"), says("b\nc"))
    comparison = Comparison((user("b"),), (response,), steps=((Step(1, 1.0), Step(3, 0.0)),))
    tree = tree_of(chatml, comparison)
    first, second = read_at_steps(chatml, tree)
    assert first.endswith("<turn>assistant\nb")
    assert second == first + "\nc"
    assert first.count("<turn>") == 2


def test_steps_that_a_template_changes_are_refused(directory):
    tokenizer = load_tokenizer(directory)
    tokenizer.hf.chat_template = CHATML.replace("m['content']", "m['content'] | upper")
    comparison = Comparison(
        (user("q"),), ((says("ab"),),), steps=((Step(1, 1.0),),), where="a, row 2"
    )
    with pytest.raises(DataError, match=r"a, row 2: field 'steps\[0\]': the chat template changes"):
        tree_of(tokenizer, comparison)
    assert tree_of(tokenizer, Comparison((user("q"),), ((says("ab"),),), steps=((),)))


def test_a_merge_over_the_seam_goes_to_the_branch(chatml):
    comparison = Comparison.pair([user("a")], "\nx", "b")
    tree = tree_of(chatml, comparison)
    assert_is_whole(chatml, comparison, tree)
    assert chatml.hf.decode(tree.prompt).endswith("<turn>assistant")
    assert asked(chatml, tree) == "\n\nx<end>"  # the merged token reaches into the response
    assert asked(chatml, tree, 1) == "b<end>"  # the template's own line break does not


def test_what_responses_begin_with_in_common_stays_in_the_branches(tokenizer):
    tree = tree_of(tokenizer, Comparison.pair([user("a")], "same x", "same y"))
    assert asked(tokenizer, tree) == "same x<end>"


def test_an_empty_response_is_its_end_of_turn(tokenizer):
    comparison = Comparison.pair([user("a")], "", "b")
    tree = tree_of(tokenizer, comparison)
    assert_is_whole(tokenizer, comparison, tree)
    assert asked(tokenizer, tree) == "<end>"


def test_identical_responses_keep_their_tokens(tokenizer):
    tree = tree_of(tokenizer, Comparison.pair([user("a")], "b", "b"))
    assert asked(tokenizer, tree, 0) == asked(tokenizer, tree, 1) == "b<end>"


def test_a_branch_that_is_all_prompt_keeps_its_last_token(directory):
    tokenizer = load_tokenizer(directory)
    tokenizer.hf.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tree = tree_of(tokenizer, Comparison.pair([user("ab")], "", "c"))
    assert tokenizer.hf.decode(tree.prompt) == "a"
    assert [tokenizer.hf.decode(branch.tokens) for branch in tree.branches] == ["b", "bc"]
    assert [asked(tokenizer, tree, k) for k in (0, 1)] == ["", "c"]
    with pytest.raises(DataError, match=r"row 3: field 'responses\[0\]': renders to no tokens"):
        chat.tokenize([Comparison.pair([user("")], "", "c", where="row 3")], tokenizer)


def test_a_refused_system_message_opens_the_first_user_turn(tokenizer, chatml):
    with_system = (Message("system", "Be kind."), user("a"))
    comparison = Comparison.pair(with_system, "b", "c")
    other = Comparison.pair([user("a")], "b", "c")
    folded = tree_of(tokenizer, comparison)
    assert "<turn>user\nBe kind.\n\na<end>" in tokenizer.hf.decode(folded.prompt)
    assert tokenizer.folded([comparison, other, comparison]) == 2
    assert_is_whole(chatml, comparison, tree_of(chatml, comparison))
    assert chatml.folded([comparison]) == 0


def test_only_the_assistants_turns_of_a_long_response_are_targets(chatml):
    response = (says("b"), user("really?"), says("yes"))
    comparison = Comparison((user("a"),), (response, (says("b"),)))
    tree = tree_of(chatml, comparison)
    assert_is_whole(chatml, comparison, tree)
    assert asked(chatml, tree) == "b<end>yes<end>"
    assert asked(chatml, tree, 1) == "b<end>"


def test_special_tokens_in_the_text_do_not_end_the_turn(chatml):
    tree = tree_of(chatml, Comparison.pair([user("a")], "b<end>c", "d"))
    assert asked(chatml, tree) == "b<end>c<end>"
    plain = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=chatml.hf.backend_tokenizer))
    plain.hf.chat_template = CHATML.replace("<end>", "~")
    tree = tree_of(plain, Comparison.pair([user("a")], "b<end>c", "d"))
    assert asked(plain, tree) == "b<end>c~\n"


def test_raw_text_gets_one_bos_and_one_eos(tokenizer):
    comparison = Comparison.pair("ab", "c", "<eos>")
    tree = tree_of(tokenizer, comparison)
    assert tokenizer.hf.decode(tree.prompt) == "<bos>ab"
    assert [asked(tokenizer, tree, k) for k in (0, 1)] == ["c<eos>", "<eos>"]
    assert [len(branch.tokens) for branch in tree.branches] == [2, 1]
    marked = tree_of(tokenizer, Comparison("<bos>ab", ("c", "")))
    assert marked.prompt.tolist() == tree.prompt.tolist()
    assert asked(tokenizer, marked, 1) == "<eos>"
    bare = tree_of(tokenizer, Comparison("", ("",)))
    assert (bare.prompt.tolist(), bare.branches[0].tokens.tolist()) == ([BOS], [EOS])


def test_raw_text_without_bos_has_no_prompt_at_all(directory):
    backend = load_tokenizer(directory).hf.backend_tokenizer
    backend.post_processor = processors.ByteLevel()
    plain = ChatTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>"), "plain"
    )
    tree = tree_of(plain, Comparison("", ("ab",)))
    assert len(tree.prompt) == 0
    assert asked(plain, tree) == "ab<eos>"
    endless = ChatTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), "endless")
    with pytest.raises(TokenizerError, match="endless.* EOS token .*row 9"):
        chat.tokenize([Comparison("a", ("b",), where="row 9")], endless)


def test_order_is_kept_where_raw_text_and_conversations_mix(tokenizer):
    talk, text = Comparison((user("a"),), ((says("b"),),)), Comparison("a", ("b",))
    trees = chat.tokenize([text, talk, text, talk, talk], tokenizer)
    assert [len(tree.prompt) > 2 for tree in trees] == [False, True, False, True, True]


words = st.text(st.sampled_from("hi\nl <é☃"), max_size=8)


@settings(max_examples=60)
@given(st.lists(words, min_size=1, max_size=4), words, st.booleans())
def test_every_branch_is_the_whole_rendering(tokenizer, chatml, answers, question, folds):
    pick = tokenizer if folds else chatml
    comparison = Comparison((user(question),), tuple((says(text),) for text in answers))
    tree = tree_of(pick, comparison)
    assert_is_whole(pick, comparison, tree)
    for k, text in enumerate(answers):
        tokens = tree.branches[k].tokens
        assert tokens[tree.branches[k].targets][-1] == END
        said = f"{text.strip() if folds else text}<end>"
        assert asked(pick, tree, k) in (said, f"\n{said}")  # a token may begin in the prompt
        assert (np.concatenate([tree.prompt, tokens]) == BOS).sum() <= 1


def test_the_template_refusing_a_conversation_names_its_row(tokenizer):
    doubled = Comparison.pair([user("a"), user("b")], "c", "d", where="x.jsonl, row 7")
    with pytest.raises(DataError, match=r"x.jsonl, row 7: field 'prompt': .*Roles must alternate"):
        chat.tokenize([doubled], tokenizer)


@pytest.mark.parametrize("template", [None, "{{ nothing.here }}", "{% for %}"])
def test_a_missing_or_broken_template_names_the_directory(directory, template):
    tokenizer = load_tokenizer(directory)
    tokenizer.hf.chat_template = template
    with pytest.raises(TokenizerError, match=f"{directory}: the .*chat template"):
        chat.tokenize([Comparison.pair([user("a")], "b", "c")], tokenizer)
    raw = Comparison.pair("a", "b", "c")
    assert tokenizer.folded([raw]) == 0
    assert len(chat.tokenize([raw], tokenizer)) == 1


TEMPLATES = [
    "llama_cpp_copies/google-gemma-2-2b-it.jinja",
    "llama_cpp_copies/Qwen-Qwen3-0.6B.jinja",
    "llama_cpp_copies/microsoft-Phi-3.5-mini-instruct.jinja",
    "chatml.jinja",
    "mistral-instruct.jinja",
]


@pytest.mark.parametrize("vocabulary", ["qwen2.5", "mistral_v1"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_real_tokenizers_and_templates(real_tokenizers, vocabulary, template):
    tokenizer = real_tokenizers[vocabulary]
    text = shared("tokenizers", "chat_templates", template).read_text("utf-8")
    hf = tokenizer.hf
    hf.chat_template = "".join(line.strip() for line in text.splitlines())
    tokenizer = ChatTokenizer(hf)
    if hf.bos_token is None:
        hf.chat_template = hf.chat_template.replace("bos_token", "''")
    pairs = sources.read(shared("sample", "pairs_64.jsonl"))
    for pair, tree in zip(pairs, chat.tokenize(pairs, tokenizer), strict=True):
        assert_is_whole(tokenizer, pair, tree)
        for response, branch in zip(pair.responses, tree.branches, strict=True):
            said = hf.decode(branch.tokens[branch.targets], skip_special_tokens=True)
            assert response[0].content.strip() in said
            assert len(said) < len(response[0].content) + 40
            tail = branch.tokens[np.flatnonzero(branch.targets)[-1] + 1 :]
            assert not hf.decode(tail).strip()


@pytest.fixture(scope="module")
def real_tokenizers():
    loaded = {
        name: load_tokenizer(shared("tokenizers", name)) for name in ("qwen2.5", "mistral_v1")
    }
    # the Mistral files at hand name no special tokens
    loaded["mistral_v1"].hf.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    return loaded
