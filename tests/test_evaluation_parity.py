"""Every real evaluation set, from its file: the same scores and the same accuracy as torch, which
reads each response alone, without padding, in float32.

    pytest -s -m slow tests/test_evaluation_parity.py
"""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from jaxrm import parallel
from jaxrm.data import sources
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.evaluate import scorers
from jaxrm.huggingface import families, hub
from jaxrm.models import heads, transformer
from jaxrm.read.accuracy import accuracy
from tests.shared_data import PAIRS, shared

pytestmark = [pytest.mark.slow, pytest.mark.torch]

SETS = ("bon_tulu2_13b", "rm_bench_native", *PAIRS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small random Qwen 2 reward model behind Qwen 2.5's own tokenizer and chat template."""
    hf = AutoTokenizer.from_pretrained(shared("tokenizers", "qwen2.5"))
    config = families.read(
        {
            "model_type": "qwen2",
            "vocab_size": len(hf),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "pad_token_id": hf.pad_token_id,
            "eos_token_id": hf.eos_token_id,
        }
    )
    model = transformer.create(config, heads.HeadConfig("linear"), seed=0)
    directory = tmp_path_factory.mktemp("models") / "qwen"
    hub.save(model, directory, ChatTokenizer(hf, "qwen2.5"))
    return directory


@pytest.fixture(scope="module")
def scorer(directory):
    mesh = parallel.make_mesh(parallel.MeshShape())
    model = hub.load(directory, None, mesh=mesh)
    return scorers.of_model(model, load_tokenizer(directory), mesh=mesh, row_length=512)


@pytest.fixture(scope="module")
def torch_scorer(directory):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)  # of one short text at a time, threads would only wait for each other
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32)
    model.eval()

    def score(comparisons):
        return [
            np.array([_one(model, tokenizer, torch, c.prompt + answer) for answer in c.responses])
            for c in comparisons
        ]

    return score


def _one(model, tokenizer, torch, messages):
    turns = [{"role": message.role, "content": message.content} for message in messages]
    ids = tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits.item()


@pytest.mark.parametrize("name", SETS)
def test_scores_and_accuracy_are_torch_s(name, scorer, torch_scorer):
    comparisons = sources.read(f"{shared('eval', f'{name}.jsonl.gz')}?ignore=reference,policy")
    ours, theirs = scorer(comparisons), torch_scorer(comparisons)
    spread = np.concatenate(theirs).std()
    largest = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    print(f"{name}: largest difference {largest:.1e}, deviation of scores {spread:.2f}")
    assert spread > 0.01
    assert largest < 1e-4 * spread
    if comparisons[0].ranks is not None:
        assert accuracy(ours, comparisons) == accuracy(theirs, comparisons)
