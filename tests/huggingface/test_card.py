"""A model card says what the run measured, for the readers that its head has."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from huggingface_hub import ModelCard

from jaxrm import parallel, score, toy
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tally import Tally
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.huggingface import card, families, hub
from jaxrm.huggingface.card import Kind
from jaxrm.huggingface.mixture import Member
from jaxrm.models.heads import HeadConfig
from jaxrm.models.uncertainty import RewardScale

METHOD = "Trained with a loss of [a paper](https://arxiv.org/abs/2406.10216)."
TALLY = Tally(10, 8, {"tie": 2}, folded=1)
RESULTS = {
    "seeds": [7],
    "data": {"train": dataclasses.asdict(TALLY)},
    "base": {"id": {"language": {"accuracy": 0.55, "n": 100, "standard_error": 0.05}}},
    "models": {
        "grm": {
            "id": {
                "accuracy": 0.8,
                "n": 100,
                "standard_error": 0.04,
                "language": {"accuracy": 0.5, "n": 96, "standard_error": 0.051},
            },
            "ood|x": {"accuracy": 1.0, "n": 1000, "standard_error": 0.0},
        },
        "baseline": {"id": {"accuracy": 0.7654, "n": 100, "standard_error": 0.04}},
    },
}
CONFIG = families.read(json.loads((toy.TOKENIZER / "config.json").read_text("utf-8")))
LINEAR, SEVERAL, MLP = HeadConfig(), HeadConfig(outputs=3), HeadConfig("mlp", hidden=2048)
READERS = ("transformers", "vLLM", "TRL", "RewardBench", "OpenRLHF", "jaxrm")


def written(
    results=RESULTS,
    base="google/gemma-2b-it",
    config=CONFIG,
    head=LINEAR,
    scale=None,
    gated=False,
    members=(),
):
    kind = Kind(config, head, gated, members)
    return card.write("grm", results, kind, method=METHOD, base=base, scale=scale)


def section(text, title):
    return re.search(rf"^## {title}\n\n(.*?)(?=\n\n## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def rows(text, title):
    table = [line.strip("| ") for line in section(text, title).splitlines() if line[:1] == "|"]
    return [re.split(r" \| ", line) for line in table]


def readers(text):
    return tuple(re.findall(r"^### (.*)$", text, re.MULTILINE))


def test_the_hub_reads_back_what_was_meant():
    parsed = ModelCard(written())
    assert parsed.data.to_dict() == {
        "base_model": "google/gemma-2b-it",
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["reward-model", "jaxrm", "gemma"],
    }
    assert parsed.text.lstrip().startswith("# grm: a reward model on google/gemma-2b-it\n")
    assert METHOD in parsed.text


@pytest.mark.parametrize("base", ["gemma", "/models/gemma", "../models/gemma", "a/b/c", "a b/c"])
def test_a_base_that_is_not_on_the_hub_is_named_but_not_linked(base):
    text = written(base=base)
    assert "base_model" not in ModelCard(text).data.to_dict()
    assert f"- Base model: `{base}`, of the family `gemma`\n" in text


def test_a_base_of_the_hub_is_linked_whatever_its_revision():
    text = written(base="google/gemma-2b-it@v1.0")
    assert ModelCard(text).data.base_model == "google/gemma-2b-it"
    assert "- Base model: `google/gemma-2b-it@v1.0`, of the family `gemma`\n" in text


def test_the_accuracies_and_their_intervals_by_hand():
    # With z2 = 1.959964**2 = 3.8415, an accuracy of .8 on 100 has its interval about
    # (.8 + z2/200) / (1 + z2/100) = .81921 / 1.03841 = .78890, to both sides
    # 1.959964 sqrt(.16/100 + z2/40000) / 1.03841 = 1.959964 * .041182 / 1.03841 = .07773.
    # All of 1000 right: 1000 / (1000 + z2) = .99617 up to 1.
    assert rows(written(), "Metrics")[:4] == [
        ["split", "n", "accuracy, %", "95 % interval"],
        ["---", "---:", "---:", "---:"],
        ["`id`", "100", "80.0", "71.1 to 86.7"],
        [r"`ood\|x`", "1,000", "100.0", "99.6 to 100.0"],
    ]


def test_none_right_begins_at_zero():
    # The upper end is z2 / (n + z2) = 3.8415 / 33.8415.
    none = {"models": {"grm": {"id": {"accuracy": 0.0, "n": 30}}}}
    assert rows(written(none), "Metrics")[2:] == [["`id`", "30", "0.0", "0.0 to 11.4"]]


def test_the_language_model_stands_beside_the_base_where_both_were_measured():
    # Of 96 half are right: sqrt(.25/96 + z2/36864) = .05204, times z / (1 + z2/96) is .09807.
    found = rows(written(), "Metrics")[4:]
    assert found[0] == ["split", "n", "accuracy, %", "95 % interval", "base, %"]
    assert found[2:] == [["`id`", "96", "50.0", "40.2 to 59.8", "55.0"]]
    without = rows(written(RESULTS | {"base": {}}), "Metrics")[4:]
    assert without[2:] == [["`id`", "96", "50.0", "40.2 to 59.8"]]
    untied = dataclasses.replace(CONFIG, tie_embeddings=False)
    sentence = "these files do not hold that head"
    assert sentence in written(config=untied)
    assert sentence not in written()
    assert sentence not in written(config=untied, head=MLP)


def test_only_what_was_measured_is_said():
    nothing = {"models": {"grm": {"id": {"accuracy": None, "n": 100}}}}
    text = written(nothing)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == ["Use", "Known limits"]
    assert "Seed" not in text
    assert "| " not in text
    with pytest.raises(ValueError, match="no model 'grm' among other"):
        written({"models": {"other": {}}})


def test_the_facts_of_the_run():
    chosen = RESULTS | {"selected": {"grm": {"step": 70, "value": 0.8}}}
    assert written(chosen, head=MLP).split("\n\n")[4].splitlines() == [
        "- Base model: `google/gemma-2b-it`, of the family `gemma`",
        "- Reward head: GRM's, with biases; hidden layers: 1 of 2,048 units; outputs: 1",
        "- Seed: 7",
        "- Step: 70, chosen for its accuracy on the split `val`",
    ]
    assert "- Step" not in written()
    assert "- Reward head: linear, without bias; outputs: 3\n" in written(head=SEVERAL)


def test_the_training_data_as_tallied_in_memory_and_in_json():
    line = "- `train`: read 10, used 8, dropped 2: 2 tie; 1 system message moved into the first"
    assert line in section(written(), "Training data")
    assert written(RESULTS | {"data": {"train": TALLY}}) == written()


def test_the_scale_of_the_rewards():
    text = section(written(scale=RewardScale(-1.5, 2.25, "the split `id`", 4000)), "Reward scale")
    assert text.startswith(
        "On the split `id` (4,000 responses) the rewards have mean -1.5 and standard deviation 2.25"
    )


def test_a_reader_is_named_for_the_files_that_it_reads():
    assert readers(written()) == READERS
    assert readers(written(head=SEVERAL)) == ("transformers", "vLLM")
    assert readers(written(head=MLP)) == ("jaxrm", "GRM")
    assert readers(written(head=dataclasses.replace(MLP, outputs=3))) == ()
    gemma3 = dataclasses.replace(CONFIG, model_type="gemma3_text")
    assert readers(written(config=gemma3)) == tuple(name for name in READERS if name != "vLLM")


def test_several_outputs_are_not_called_a_reward():
    several = written(head=SEVERAL)
    assert "`num_labels` is 3" in several
    assert "higher for a better response" not in several
    assert "num_labels" not in written()


def test_a_gate_s_reward_is_jaxrm_s_and_the_outputs_are_everyone_s():
    gated = written(head=SEVERAL, gated=True)
    assert readers(gated) == ("jaxrm", "transformers", "vLLM")
    assert ModelCard(gated).data.library_name == "jaxrm"
    assert "higher for a better response" in gated
    assert "outputs: 3; a gate on the prompt weighs them\n" in gated
    assert "jaxrm returns the reward, others the outputs" in gated
    assert "num_labels" not in gated


def test_a_mixture_is_read_by_jaxrm_alone():
    scale = RewardScale(-1.5, 2.25, "the split `id`", 4000)
    members = Member("policy", "logps", 0.1), Member("reference", "logps", -0.1)
    text = written(head=None, members=members, scale=scale)
    assert "have mean -1.5" in text
    assert "reward_offset" not in text
    assert readers(text) == ("jaxrm",)
    assert ModelCard(text).data.library_name == "jaxrm"
    assert "higher for a better response" in text
    fact = "- Reward: 0.1 * (`policy`'s logps - 0) + -0.1 * (`reference`'s logps - 0)\n"
    assert fact in text
    assert "several models, `policy`, `reference`, and `config.json` what each counts" in text
    assert "servers of reward\nmodels do not" in text


def test_transformers_is_not_offered_a_head_that_it_would_draw_at_random():
    parsed = ModelCard(written(head=MLP))
    assert parsed.data.library_name == "jaxrm"
    assert "draws a random head in its place" in parsed.text


def test_the_request_to_vllm_is_json():
    request = re.search(r"-d '(\{.*?\})'\n", written(), re.DOTALL)[1]
    assert json.loads(request)["use_activation"] is False


@pytest.mark.torch
def test_the_lines_for_transformers_give_our_rewards(tmp_path):
    pytest.importorskip("torch")
    tokenizer = load_tokenizer(toy.TOKENIZER)
    model = hub.load(toy.shipped_base(), LINEAR)
    hub.save(model, tmp_path / "export", tokenizer, card=written())
    text = (tmp_path / "export" / "README.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    names = {}
    exec(code.replace("DIR", str(tmp_path / "export")), names)

    question, *answers = ("What is the capital of France?", "Paris.", "I think that it is Lyon.")
    responses = tuple((Message("assistant", answer),) for answer in answers)
    trees = chat.tokenize([Comparison((Message("user", question),), responses)], tokenizer)
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    [ours] = score.score(model, trees, mesh=mesh, row_length=64)
    np.testing.assert_allclose(names["rewards"][:, 0], ours, rtol=1e-4)


def test_a_soft_cap_on_attention_is_not_left_to_a_default_that_forgets_it():
    capped = dataclasses.replace(CONFIG, attention_softcap=50.0)
    assert 'attn_implementation="eager"' in section(written(config=capped), "Use")
    assert "eager" not in written()
