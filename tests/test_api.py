"""jaxrm.load: rewards from Python are those of the command, whatever the directory holds."""

from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxrm
from jaxrm import api, parallel
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, ModelFileError, OptionError, TokenizerError
from jaxrm.huggingface import adapter, hub, mixture
from jaxrm.huggingface.mixture import Member
from jaxrm.methods.verdicts import which_is_better
from jaxrm.models import heads
from jaxrm.models.gate import ConstantGate, Gated
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.uncertainty import RewardScale
from jaxrm.read import reading, scoring
from tests.messages_oracle import FOLDER
from tests.models.support import small_model

SCALE = RewardScale(0.5, 2.0, "some", 3)


def says(role, content):
    return {"role": role, "content": content}


def conversation(asked, answered):
    return [says("user", asked), says("assistant", answered)]


WHY = conversation("why?", "figs and oats")
LONGER = [says("system", "Be brief."), *WHY, *conversation("so?", "no")]


@pytest.fixture(scope="module", autouse=True)
def mesh():
    """One device for all: what many make of it is tested with the reader."""
    one = parallel.make_mesh(devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "make_mesh", lambda: one)
        yield one


@pytest.fixture(scope="module")
def rm():
    return jaxrm.load(FOLDER)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """By name, directories of every kind that is scored with."""
    folder, tokenizer = tmp_path_factory.mktemp("models"), load_tokenizer(FOLDER)
    model = hub.load(FOLDER, None)
    several = small_model(model.config, HeadConfig(outputs=3))
    gated = Gated(ConstantGate(), {"log_scale": np.zeros(()), "logits": np.zeros(3)})
    hub.save(model, folder / "scaled", tokenizer, scale=SCALE)
    hub.save(several, folder / "several", tokenizer)
    hub.save(several, folder / "gated", tokenizer, gate=gated)
    members = [(model, Member(name, "rewards", 2.0, 1.0)) for name in ("one", "other")]
    mixture.save(folder / "mixture", members, tokenizer, scale=SCALE)
    lora = hub.load(FOLDER, None, LoraConfig(rank=2))
    adapter.save(lora, folder / "adapter", base=str(FOLDER), tokenizer=tokenizer)
    return {path.name: path for path in folder.iterdir()}


def of_the_reader(comparisons, row_length=256):
    """Rewards of comparisons by `jaxrm.read.scoring`."""
    options = {"mesh": parallel.make_mesh(), "rows": 1, "row_length": row_length}
    trees = chat.tokenize(comparisons, load_tokenizer(FOLDER))
    rewards = scoring.score(hub.load(FOLDER, None), trees, **options)
    return np.concatenate(rewards)


def messages(turns):
    return tuple(Message(**turn) for turn in turns)


def test_conversations_are_scored_in_order(rm):
    expected = of_the_reader(
        [Comparison(messages(turns[:-1]), (messages(turns[-1:]),)) for turns in (WHY, LONGER)]
    )
    found = rm.score([WHY, LONGER])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(expected[0] - expected[1]) > 0.01
    np.testing.assert_allclose(rm.score(WHY), expected[:1], atol=1e-5)
    np.testing.assert_allclose(rm.score([messages(WHY), tuple(LONGER)]), expected, atol=1e-5)
    assert rm.score([]).shape == (0,)


def test_responses_are_compared_as_they_are_scored(rm):
    answers = ["figs and oats", "no", ""]
    expected = rm.score([conversation("why?", text) for text in answers])
    found = rm.compare("why?", answers)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mixed = [answers[0], [says("assistant", answers[1])], messages([says("assistant", "")])]
    np.testing.assert_allclose(rm.compare([says("user", "why?")], mixed), expected, atol=1e-5)


def test_without_a_template_text_is_raw(tmp_path, directories):
    raw = jaxrm.load(FOLDER)
    raw.tokenizer.hf.chat_template = None
    expected = of_the_reader([Comparison("why?", (" figs", " no"))])
    np.testing.assert_allclose(raw.compare("why?", [" figs", " no"]), expected, atol=1e-5)
    with pytest.raises(DataError, match=r"responses\[1\]: expected text, as the prompt is raw"):
        raw.compare("why?", [" figs", [says("assistant", "no")]])
    with pytest.raises(TokenizerError, match="no chat template"):
        raw.score(WHY)


def test_the_template_can_be_given(tmp_path, rm):
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    other = jaxrm.load(FOLDER, chat_template=tmp_path / "plain.jinja")
    assert abs(other.score(WHY) - rm.score(WHY))[0] > 0.01


def test_a_text_longer_than_any_row_is_read_whole(rm):
    long = conversation("why? " * 520, "figs")
    assert len(rm.tokenizer.hf(long[0]["content"])["input_ids"]) > api.LONGEST
    expected = of_the_reader([Comparison(messages(long[:1]), (messages(long[1:]),))], 2048)
    np.testing.assert_allclose(rm.score([WHY, long])[1:], expected, atol=1e-5)


def test_rewards_are_normalised_by_what_the_files_record(rm, directories):
    raw = rm.score([WHY, LONGER])
    scaled = jaxrm.load(directories["scaled"])
    np.testing.assert_allclose(scaled.score([WHY, LONGER]), raw, atol=1e-5)
    found = scaled.score([WHY, LONGER], normalise=True)
    np.testing.assert_allclose(found, (raw - 0.5) / 2, atol=1e-5)
    found = scaled.compare("why?", ["figs and oats"], normalise=True)
    np.testing.assert_allclose(found, (raw[:1] - 0.5) / 2, atol=1e-5)
    assert found.dtype == np.float32


def test_a_mixture_adds_its_members_and_has_a_scale_of_its_own(rm, directories):
    mixed = jaxrm.load(directories["mixture"])
    raw = rm.score([WHY, LONGER])
    np.testing.assert_allclose(mixed.score([WHY, LONGER]), 4 * (raw - 1), atol=1e-4)
    found = mixed.score([WHY, LONGER], normalise=True)
    np.testing.assert_allclose(found, (4 * (raw - 1) - 0.5) / 2, atol=1e-4)


def test_where_nothing_is_recorded_nothing_is_normalised(rm, directories):
    with pytest.raises(ModelFileError, match="messages: no scale of its rewards is recorded"):
        rm.score(WHY, normalise=True)
    moved = jaxrm.load(directories["scaled"], adapter=directories["adapter"])
    assert np.isfinite(moved.score(WHY)).all()
    with pytest.raises(ModelFileError, match="no scale"):
        moved.compare("why?", ["no"], normalise=True)


def test_several_outputs_come_as_they_are_and_a_gate_makes_one_of_them(directories):
    several = jaxrm.load(directories["several"])
    found = several.score([WHY, LONGER])
    assert found.shape == (2, 3)
    assert several.score([]).shape == (0, 3)
    [part] = several.parts
    trees = chat.tokenize([Comparison(messages(WHY[:1]), (messages(WHY[1:]),))], several.tokenizer)
    options = {"mesh": several.mesh, "row_length": 256}
    values = reading.read(part.model, trees, {"all": heads.outputs}, **options)["all"]
    np.testing.assert_allclose(found[:1], values[0], atol=1e-5)
    # Equal weights.
    gated = jaxrm.load(directories["gated"]).score([WHY, LONGER])
    np.testing.assert_allclose(gated, found.mean(axis=1), atol=1e-5)


def test_calls_share_what_is_compiled(rm):
    rm.score(WHY)
    compiled = reading._read_batch._cache_size()
    rm.score([conversation("what?", "yes"), WHY])
    rm.compare("who?", ["she", "he"])
    assert reading._read_batch._cache_size() == compiled


@pytest.mark.parametrize(
    ("lengths", "rows", "row_length"),
    [
        ((10,), 1, 256),
        ((200, 56), 1, 256),
        ((200, 57), 1, 512),
        ((1000,), 1, 1024),
        ((1000, 25), 2, 1024),
        ((1000,) * 3, 4, 1024),
        ((1000,) * 100, 8, 1024),
        ((5000,), 8, 1024),
    ],
)
def test_shapes_are_few_and_hold_without_much_to_spare(lengths, rows, row_length):
    def tree(length):
        ids = np.zeros(length - 1, np.int32)
        return TokenTree(ids[:1], (Branch(ids, ids > 0),))

    found = api.shape([tree(length) for length in lengths], None)
    assert found == {"mesh": None, "rows": rows, "row_length": row_length}


USER = WHY[:1]


@pytest.mark.parametrize(
    ("conversations", "problem"),
    [
        ("why?", r"^conversations: expected a list of them, found text"),
        ({"role": "user"}, r"^conversations: expected a list of them, found an object"),
        ([WHY, "why?"], r"^conversations\[1\]: expected a list of messages, found text"),
        ([WHY, []], r"^conversations\[1\]: .* found a list of nothing"),
        ([WHY, ["why?"]], r"^conversations\[1\]\[0\]: .*expected a message .* found text"),
        ([*WHY, "why?"], r"^conversations\[0\]\[2\]: .*expected a message"),
        ([WHY, [{"content": "a"}]], r"^conversations\[1\]\[0\]: field 'message.role': missing"),
        ([[says("bot", "a")]], r"^conversations\[0\]\[0\]: field 'message.role': 'bot' is not"),
        ([[*USER, says("assistant", 7)]], r"^conversations\[0\]\[1\]: .*content': expected text"),
        ([[*USER, Message("assistant", None)]], r"^conversations\[0\]\[1\]: .*content': expected"),
        ([WHY, USER], r"^conversations\[1\]: must end with an assistant message, not user"),
        ([WHY[1:]], r"^conversations\[0\]: nothing comes before the answer"),
        ([[*WHY, *WHY[1:]]], r"^conversations\[0\]: ends with two assistant messages"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_named(rm, conversations, problem):
    with pytest.raises(DataError, match=problem):
        rm.score(conversations)


@pytest.mark.parametrize(
    ("prompt", "responses", "problem"),
    [
        ("why?", "no", "^responses: expected a list of texts.* found text"),
        ("why?", [], "^responses: expected a list of texts.* found a list of nothing"),
        ("why?", [7], r"^responses\[0\]: expected a list of messages, found a int"),
        ("why?", ["a", [says("user", "b")]], r"responses\[1\]'?: must end with an assistant"),
        (
            "<start_of_turn>user\nwhy?",
            ["no"],
            "^prompt: begins as the chat template of .* messages",
        ),
        ([], ["no"], "^prompt: expected a list of messages, found a list of nothing"),
        ([{"role": "user"}], ["no"], r"^prompt\[0\]: field 'message.content': missing"),
    ],
)
def test_what_is_wrong_with_a_comparison_is_named(rm, prompt, responses, problem):
    with pytest.raises(DataError, match=problem):
        rm.compare(prompt, responses)


def test_what_cannot_be_loaded_is_refused():
    with pytest.raises(OptionError, match="dtype must be float32 or bfloat16, not 'float16'"):
        jaxrm.load(FOLDER, dtype="float16")
    with pytest.raises(OptionError, match="an adapter beside a judge: merge it first"):
        jaxrm.load(FOLDER, "adapter", judge=which_is_better)


# A judge


@pytest.fixture(scope="module")
def judge():
    return jaxrm.load(FOLDER, judge=which_is_better)


def test_a_judge_says_how_likely_each_is_to_win(judge):
    found = judge.compare("why?", ["figs and oats", "no", "yes"])
    assert found.shape == (3,)
    assert found.dtype == np.float32
    assert found.sum() == pytest.approx(1.5)  # three pairs, each of which shares out one
    assert np.ptp(found) > 1e-4


def test_a_judge_has_no_number_for_one_answer(judge):
    with pytest.raises(OptionError, match="no number for one alone: use compare"):
        judge.score(WHY)
    with pytest.raises(DataError, match="one response has nothing to beat"):
        judge.compare("why?", ["no"])
    with pytest.raises(OptionError, match="normalise must be False for a judge"):
        judge.compare("why?", ["no", "yes"], normalise=True)


# Importing

EVERY_MODULE = """
import importlib.machinery, pkgutil, sys
PathFinder = importlib.machinery.PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "torch" else found(name, *rest)
import jaxrm
for module in pkgutil.walk_packages(jaxrm.__path__, "jaxrm."):
    importlib.import_module(module.name)
    bridge = sys.modules.get("jax._src.xla_bridge")
    assert not (bridge and bridge._backends), f"{module.name} starts a device"
assert "transformers" in sys.modules
print(bridge.__name__)
"""


def test_importing_starts_no_device_and_does_not_miss_torch():
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True)
    assert done.stdout == "jax._src.xla_bridge\n", done.stderr
    assert "PyTorch" not in done.stderr


def test_importing_the_library_alone_imports_little():
    code = "import jaxrm, sys; print(sorted({'jax', 'transformers', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
