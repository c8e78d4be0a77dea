"""What two readings of a model (ours, torch's) or of a tokenizer differ by."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from jaxrm import convert
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import hub, verify
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import RewardModel, split
from tests.data import tokenizer_kinds
from tests.models.make_fixtures import FIXTURES
from tests.models.support import CONFIG, small_model


@pytest.fixture(scope="module")
def model() -> RewardModel:
    return small_model(CONFIG, HeadConfig())


def test_texts_are_random_and_grow_and_hold_no_padding():
    config = dataclasses.replace(CONFIG, vocab_size=5, pad_token_id=3)
    trees = verify.texts(config, count=4, longest=38)
    assert [len(tree.prompt) for tree in trees] == [4, 9, 14, 19]
    assert [len(tree.branches[0].tokens) for tree in trees] == [4, 9, 14, 19]
    ids = np.concatenate([[*tree.prompt, *tree.branches[0].tokens] for tree in trees])
    assert set(ids) == {0, 1, 2, 4}
    assert all(tree.branches[0].targets.all() for tree in trees)
    for one, other in zip(trees, verify.texts(config, count=4, longest=38), strict=True):
        np.testing.assert_array_equal(one.prompt, other.prompt)
    without = verify.texts(dataclasses.replace(config, pad_token_id=None))
    assert {token for tree in without for token in tree.prompt} == {0, 1, 2, 3, 4}


def test_differences_are_shares_of_the_largest_value():
    right = {"rewards": np.array([[1.0], [-4.0]]), "logps": np.array([-10.0, -20.0])}
    left = {"rewards": np.array([[1.5], [-4.0]]), "logps": np.array([-10.0, -15.0]), "other": 0}
    assert verify.differences(left, right) == {"rewards": 0.125, "logps": 0.25}
    assert verify.differences(right, right) == {"rewards": 0.0, "logps": 0.0}


@pytest.mark.parametrize(
    ("left", "right", "difference"),
    [
        ([math.nan, 1.0], [1.0, 1.0], math.inf),
        ([1.0, 1.0], [math.nan, 1.0], math.inf),
        ([math.inf, 1.0], [math.inf, 1.0], math.inf),
        ([[1.0, 1.0]], [1.0, 1.0], math.inf),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
    ],
)
def test_what_is_no_number_or_another_shape_is_infinitely_different(left, right, difference):
    found = verify.differences({"logps": np.array(left)}, {"logps": np.array(right)})
    assert found == {"logps": difference}
    one_zero = verify.differences({"logps": np.array([1.0])}, {"logps": np.array([0.0])})
    assert one_zero["logps"] > 1


def _changed(model: RewardModel) -> RewardModel:
    """The model with its last norm's first weight changed by 1."""
    params = split(model)[1]
    params["final_norm"] = params["final_norm"].at[0].add(1.0)
    return RewardModel(model.config, model.head_config, params=params)


def _torch_differs_by(model: RewardModel, directory) -> dict[str, float]:
    trees = verify.texts(model.config)
    return verify.differences(verify.torchs(directory, trees), convert.values_of(model, trees))


@pytest.mark.torch
@pytest.mark.parametrize("variant", ["llama_dynamic", "gemma3_capped"])
def test_torch_reads_rewards_of_classifiers_and_log_probs_of_language_models(variant, tmp_path):
    pytest.importorskip("torch")
    model = hub.load(FIXTURES / variant, None)
    classifier = _torch_differs_by(model, FIXTURES / variant)
    hub.save(model.language_model(), tmp_path / "language")
    language_model = _torch_differs_by(model, tmp_path / "language")
    assert classifier.keys() == {"rewards"}
    assert language_model.keys() == {"logps"}
    assert classifier["rewards"] < 1e-5
    assert language_model["logps"] < 1e-5


@pytest.mark.torch
def test_torch_reads_the_directory_and_not_the_model(model, tmp_path):
    pytest.importorskip("torch")
    hub.save(model, tmp_path / "model")
    hub.save(model.language_model(), tmp_path / "language")
    assert _torch_differs_by(_changed(model), tmp_path / "model")["rewards"] > 1e-2
    assert _torch_differs_by(_changed(model), tmp_path / "language")["logps"] > 1e-2


@pytest.mark.torch
def test_torch_reads_grm_s_layout_as_a_language_model_and_says_nothing(tmp_path, capfd):
    pytest.importorskip("torch")
    from transformers.utils import logging

    model = small_model(CONFIG, HeadConfig("mlp", hidden=8))
    hub.save(model, tmp_path / "model", dtype="bfloat16")
    stored = hub.load(tmp_path / "model", None)
    verbosity = logging.get_verbosity()
    logging.enable_progress_bar()  # whatever ran before in this process
    difference = _torch_differs_by(stored, tmp_path / "model")
    assert difference.keys() == {"logps"}
    assert difference["logps"] < 1e-5
    said = capfd.readouterr()
    assert "Loading weights" not in said.out + said.err
    assert "v_head" not in said.out + said.err
    assert logging.get_verbosity() == verbosity
    assert logging.is_progress_bar_enabled()


@pytest.mark.torch
def test_what_transformers_cannot_read_is_named(model, tmp_path):
    pytest.importorskip("torch")
    hub.save(model, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 60}))
    with pytest.raises(ModelFileError, match="model: transformers cannot read it"):
        verify.torchs(tmp_path / "model", verify.texts(CONFIG))


def test_the_tokens_of_a_file_are_of_whole_texts(tmp_path):
    tokenizer = tokenizer_kinds.write("metaspace", tmp_path)
    bare, whole = (tokenizer.encode("the a", add_special_tokens=each).ids for each in (False, True))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9, pad_id=2, pad_token="<unk>")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert verify.tokens_of_file(tmp_path, ["the a", ""]) == [(bare, whole), ([], [0])]


def test_what_a_source_lacks_is_taken_from_what_was_made_of_it(tmp_path):
    file = tokenizer_kinds.write("metaspace", tmp_path / "in")
    file.add_special_tokens(["<new>"])
    (tmp_path / "out").mkdir()
    file.save(str(tmp_path / "out" / "tokenizer.json"))
    texts = ["a<new>b", "<s> the"]
    assert verify.tokens_of_file(tmp_path / "in", texts) != verify.tokens_of_file(
        tmp_path / "out", texts
    )
    assert verify.tokens_of_source(
        tmp_path / "in", tmp_path / "out", texts
    ) == verify.tokens_of_file(tmp_path / "out", texts)
