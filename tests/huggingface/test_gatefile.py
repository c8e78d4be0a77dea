"""A gate lies beside the classifier whose outputs it weighs; others read that as it is."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxrm import convert
from jaxrm.errors import ModelFileError
from jaxrm.huggingface import gatefile, hub, verify, weights
from jaxrm.huggingface import orbax as orbax_directory
from jaxrm.models.gate import ConstantGate, Gated, PromptGate
from jaxrm.models.heads import HeadConfig
from tests.models.make_adapter_fixtures import ADAPTERS
from tests.models.support import CONFIG, small_model

GATES = {
    "prompt": PromptGate(hidden=8, layers=2, temperature=1.0, scale=2.0),
    "linear": PromptGate(layers=0),
    "constant": ConstantGate(scale=0.5),
}


def fresh(gate, seed=1, attributes=3):
    return Gated(gate, gate.init(jax.random.key(seed), CONFIG.hidden_size, attributes))


def model():
    return small_model(CONFIG, HeadConfig(outputs=3))


def said(directory):
    return json.loads((directory / "config.json").read_text())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gate") / "armo"
    hub.save(model(), directory, gate=fresh(GATES["prompt"]))
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "in")


def assert_same(ours, theirs):
    assert ours.gate == theirs.gate
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_a_gate_comes_back_as_it_was(tmp_path, gate, caplog):
    gated = fresh(gate)
    hub.save(model(), tmp_path / "armo", gate=gated)
    loaded = hub.load(tmp_path / "armo", None)
    read = gatefile.read(tmp_path / "armo", loaded)
    assert_same(read, gated)
    assert "not known" not in caplog.text
    trees = verify.texts(CONFIG)
    values, outputs = (
        convert.values_of(loaded, trees, read),
        convert.values_of(model(), trees)["rewards"],
    )
    np.testing.assert_array_equal(values["rewards"], outputs)
    if gate == GATES["constant"]:  # half of the mean
        np.testing.assert_allclose(values["gated"], outputs.mean(axis=1) / 2, rtol=1e-5)


def test_the_directory_is_a_classifier_for_others(saved):
    config = said(saved)
    assert config["architectures"] == ["GemmaForSequenceClassification"]
    assert (config["num_labels"], config["model_type"]) == (3, "gemma")
    index = json.loads((saved / weights.INDEX).read_text())
    held = safetensors.numpy.load_file(saved / weights.SINGLE)
    # Whoever goes by the index does not come across the gate.
    assert index["weight_map"] == dict.fromkeys(held, weights.SINGLE)
    assert held["score.weight"].shape == (3, 24)


@pytest.mark.torch
def test_hugging_face_reads_the_attributes(saved):
    pytest.importorskip("torch")
    trees = verify.texts(CONFIG)
    theirs, ours = verify.torchs(saved, trees), convert.values_of(model(), trees)
    assert verify.differences(theirs, ours)["rewards"] < 1e-4


def test_a_model_without_a_gate_has_none_and_none_is_inherited(copy):
    loaded = hub.load(copy, None)
    hub.save(loaded, copy)
    assert gatefile.FIELD not in said(copy)
    assert not (copy / gatefile.FILE).exists()
    assert gatefile.read(copy, hub.load(copy, None)) is None


@pytest.mark.parametrize("head", [HeadConfig(outputs=2), HeadConfig()])
def test_a_gate_weighs_as_many_outputs_as_the_head_has(tmp_path, head):
    with pytest.raises(ValueError, match="does not fit a head of kind linear and"):
        hub.save(small_model(CONFIG, head), tmp_path / "armo", gate=fresh(GATES["prompt"]))
    assert list(tmp_path.iterdir()) == []


# What stands in the files


def spoil_tensors(change):
    def spoil(directory):
        held = safetensors.numpy.load_file(directory / gatefile.FILE)
        change(held)
        safetensors.numpy.save_file(held, directory / gatefile.FILE)

    return spoil


def spoil_field(value):
    def spoil(directory):
        config = said(directory)
        config[gatefile.FIELD] = value and config[gatefile.FIELD] | value
        (directory / "config.json").write_text(json.dumps(config))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_field(None), r"jaxrm_gate \(None\) must say what gate.safetensors holds"),
        (spoil_field({"kind": "learned"}), r"kind \('learned'\) is not one of prompt, constant"),
        (spoil_field({"kind": "constant"}), r"jaxrm_gate: dropout \(.*\) is not known"),
        (spoil_field({"layers": 1.0}), r"jaxrm_gate: layers \(1.0\) must be a whole number"),
        (spoil_field({"temperature": 0}), "temperature must be above 0, not 0.0"),
        (
            spoil_field({"layers": 1}),
            r"gate.safetensors: tensor bias_1 is \(8,\) for \(3,\), by .*jaxrm_gate",
        ),
        (spoil_tensors(lambda t: t.pop("log_scale")), r"log_scale is missing for \(\)"),
        (
            spoil_tensors(lambda t: t.update(more=np.zeros(1, np.float32))),
            r"more is \(1,\) for nothing",
        ),
        (
            spoil_tensors(lambda t: t.update(bias_0=np.zeros(8, np.float16))),
            "bias_0 is float16, not float32",
        ),
        (
            lambda directory: (directory / gatefile.FILE).unlink(),
            "gate.safetensors: cannot be read",
        ),
        (
            lambda directory: (directory / gatefile.FILE).write_bytes(b"12345678"),
            "gate.safetensors: not a whole safetensors file",
        ),
    ],
)
def test_what_makes_no_sense_is_named_by_file_and_field(copy, spoil, problem):
    spoil(copy)
    loaded = hub.load(copy, None)
    with pytest.raises(ModelFileError, match=f"in/.*{problem}"):
        gatefile.read(copy, loaded)


def test_an_adapter_does_not_go_beside_a_gate(copy, tmp_path):
    with pytest.raises(ModelFileError, match="its gate was fitted without an adapter"):
        hub.load(copy, None, adapter=ADAPTERS / "every")
    with pytest.raises(ModelFileError, match="its gate was fitted without an adapter"):
        convert.main(convert.Config(copy, tmp_path / "out", adapter=ADAPTERS / "every"))


# Converted


@pytest.fixture
def _without_torch(monkeypatch):
    monkeypatch.setattr(verify, "has_torch", lambda: False)


@pytest.mark.usefixtures("_without_torch")
@pytest.mark.parametrize("to", ["files", "orbax"])
def test_a_gate_is_kept_and_checked(saved, tmp_path, to, capsys):
    convert.main(convert.Config(saved, tmp_path / "middle", to=to))
    assert f"{tmp_path / 'middle'}, read by jaxrm: gated differ by 0.0e+00" in (
        capsys.readouterr().out
    )
    convert.main(convert.Config(tmp_path / "middle", tmp_path / "out"))
    assert said(tmp_path / "out") == said(saved)
    gates = [(place / gatefile.FILE).read_bytes() for place in (saved, tmp_path / "out")]
    assert gates[0] == gates[1]


@pytest.mark.usefixtures("_without_torch")
def test_a_gate_that_got_lost_or_is_another_fails(saved, tmp_path, monkeypatch):
    save = hub.save
    for change, problem in (
        ({"gate": None}, "read again, there are only"),
        ({"gate": fresh(GATES["prompt"], seed=2)}, "is another model when it is read"),
    ):

        def save_otherwise(*args, change=change, **options):
            save(*args, **options | change)

        monkeypatch.setattr(hub, "save", save_otherwise)
        with pytest.raises(ModelFileError, match=problem):
            convert.main(convert.Config(saved, tmp_path / "bad"))


@pytest.mark.usefixtures("_without_torch")
def test_a_language_model_has_no_gate(saved, tmp_path, capsys):
    convert.main(convert.Config(saved, tmp_path / "out", to="language-model"))
    assert "logps differ by 0.0e+00" in capsys.readouterr().out
    assert gatefile.FIELD not in said(tmp_path / "out")


def test_an_orbax_directory_without_its_gate_does_not_claim_one(saved, tmp_path):
    orbax_directory.save(hub.load(saved, None), tmp_path / "orbax")
    assert gatefile.FIELD not in said(tmp_path / "orbax")
