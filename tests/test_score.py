"""Scoring: any K, any length, any number, in input order; the command writes whole files or
none."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from jaxrm import parallel
from jaxrm import score as scoring
from jaxrm.data import chat, packing, sources
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.tokenizer import ChatTokenizer, load_tokenizer
from jaxrm.errors import DataError, OptionError
from jaxrm.huggingface import families, hub, mixture, names
from jaxrm.huggingface.mixture import Member
from jaxrm.models import heads, transformer
from jaxrm.models.heads import HeadConfig
from jaxrm.parallel import MeshShape
from jaxrm.read import reading
from jaxrm.score import score, stream
from tests.messages_oracle import FOLDER
from tests.models.support import small_model
from tests.shared_data import shared


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def model():
    return hub.load(FOLDER, None)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


def question(number, text, *answers):
    responses = tuple((Message("assistant", answer),) for answer in answers)
    return Comparison((Message("user", text),), responses, id=str(number))


@pytest.fixture(scope="module")
def mixed():
    """Thirty comparisons of one to twenty-five responses, none, some or many words long."""
    rng = np.random.default_rng(0)
    lengths = [
        (int(rng.integers(1, 12)), rng.integers(0, 9, rng.integers(1, 4))) for _ in range(28)
    ]
    made = [
        question(i, "why? " * words, *("figs and oats " * n for n in answers))
        for i, (words, answers) in enumerate(lengths)
    ]
    made.insert(5, question("many", "how many?", *(f"answer {i}" for i in range(25))))
    made.insert(20, question("long", "a long one? " * 30, "no", "yes " * 60, ""))
    return made


@pytest.fixture(scope="module")
def whole(model, mixed, tokenizer, mesh):
    """The rewards of `mixed`, all trees in memory, by id."""
    rewards = score(model, chat.tokenize(mixed, tokenizer), mesh=mesh, rows=2, row_length=256)
    return {comparison.id: found for comparison, found in zip(mixed, rewards, strict=True)}


def difference(found, expected):
    """The largest one between pairs (comparison, rewards) and rewards by id."""
    differences = [np.abs(rewards - expected[comparison.id]).max() for comparison, rewards in found]
    assert len(differences) == len(expected)
    return max(differences)


@pytest.mark.parametrize(
    ("rows", "row_length", "chunk", "devices"),
    [
        (2, 256, 1000, MeshShape(1, 1, 1)),
        (3, 128, 7, MeshShape(1, 1, 1)),
        (8, 128, 20, MeshShape(2, 2, 2)),
    ],
)
def test_no_score_hangs_on_what_it_is_scored_with(
    mixed, whole, tokenizer, rows, row_length, chunk, devices
):
    order = np.random.default_rng(rows).permutation(len(mixed))
    count = devices.data * devices.fsdp * devices.tensor
    mesh = parallel.make_mesh(devices, jax.devices()[:count])
    model = hub.load(FOLDER, None, mesh=mesh)
    options = {"rows": rows, "row_length": row_length, "chunk": chunk}
    found = list(stream(model, (mixed[i] for i in order), tokenizer, mesh=mesh, **options))
    assert [comparison for comparison, _ in found] == [mixed[i] for i in order]
    assert difference(found, whole) < 1e-5
    assert np.ptp(np.concatenate(list(whole.values()))) > 0.1  # they do differ among themselves


def test_a_row_s_length_compiles_once_however_many_chunks(model, mixed, tokenizer, mesh):
    compiled = reading._read_batch._cache_size()
    chunks = list(
        scoring.in_chunks(model, mixed, tokenizer, mesh=mesh, rows=2, row_length=176, chunk=9)
    )
    assert len(chunks) > 4
    longest = [max(map(packing.longest_branch, chunk.trees)) for chunk in chunks]
    lengths = {176 if need <= 176 else 512 for need in longest}
    assert lengths == {176, 512}
    assert reading._read_batch._cache_size() == compiled + 2


def test_chunks_hold_whole_comparisons_and_end_where_they_are_full(model, mixed, tokenizer, mesh):
    options = {"mesh": mesh, "rows": 2, "row_length": 256}
    chunks = list(scoring.in_chunks(model, mixed, tokenizer, chunk=9, **options))
    for chunk in chunks:
        *others, last = (len(comparison.responses) for comparison in chunk.comparisons)
        assert sum(others) < 9
        assert chunk is chunks[-1] or sum(others) + last >= 9
        assert [len(found) for found in chunk.rewards] == [*others, last]


def test_no_more_is_read_than_a_few_chunks(model, mixed, tokenizer, mesh):
    taken = []

    def endless():
        while True:
            taken.append(mixed[0])
            yield mixed[0]

    per_chunk = -(-8 // len(mixed[0].responses))
    found = stream(model, endless(), tokenizer, mesh=mesh, rows=2, row_length=256, chunk=8)
    for _ in range(3 * per_chunk):
        next(found)
    found.close()
    # Three are scored, one is ready, one tokenised, and of one more the first was asked for.
    assert len(taken) <= 6 * per_chunk


def test_what_breaks_while_reading_is_raised_where_it_stands(model, mixed, tokenizer, mesh):
    def broken():
        yield from mixed[:2]
        raise DataError("row 3")

    found = stream(model, broken(), tokenizer, mesh=mesh, rows=2, row_length=256, chunk=1)
    assert next(found)[0] is mixed[0]
    assert next(found)[0] is mixed[1]
    with pytest.raises(DataError, match="row 3"):
        next(found)


def test_the_command_scores_a_file(tmp_path, mesh, model, tokenizer, capsys):
    rows = [
        {
            "id": "ranked",
            "prompt": [{"role": "user", "content": "hi"}],
            "responses": ["a", "b", ""],
        },
        {"id": "pair", "prompt": "raw text", "responses": [" and more", " or less"]},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "deep" / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    scoring.main(scoring.Config(source, out, FOLDER, row_length=64, rows=1))
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in written] == ["ranked", "pair"]
    trees = chat.tokenize(sources.read(source), tokenizer)
    expected = score(model, trees, mesh=mesh, rows=2, row_length=256)
    for row, rewards in zip(written, expected, strict=True):
        np.testing.assert_allclose(row["rewards"], rewards, rtol=1e-5, atol=1e-5)
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    said, tokens = capsys.readouterr().out, sum(map(packing.tree_length, trees))
    assert said.startswith(f"{out}: 2 comparisons, 5 responses, none left out; {tokens} tokens in ")
    assert said.endswith("; empty answers: 1\n")


def test_the_command_scores_a_mixture(tmp_path, mesh, model, tokenizer):
    source, place = tmp_path / "in.jsonl", tmp_path / "mixture"
    source.write_text('{"id": "a", "prompt": "raw text", "responses": [" and more", " or"]}\n')
    reads = Member("reads", "rewards", 2.0, 0.5), Member("likely", "logps", -0.25)
    mixture.save(place, [(model, member) for member in reads], tokenizer)
    scoring.main(scoring.Config(source, tmp_path / "out.jsonl", place, row_length=64, rows=1))
    [row] = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    trees = chat.tokenize(sources.read(source), tokenizer)
    readings = {"rewards": heads.rewards, "logps": heads.response_logps}
    parts = reading.read(model, trees, readings, mesh=mesh, row_length=64, ask="all")
    expected = 2 * (parts["rewards"][0] - 0.5) - 0.25 * parts["logps"][0]
    np.testing.assert_allclose(row["rewards"], expected, rtol=1e-5)


def test_the_first_are_shown_and_all_are_scored(tmp_path, capsys):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        "".join(f'{{"id": "{i}", "prompt": "{i}?", "responses": ["b", "c"]}}\n' for i in "xyz")
    )
    config = scoring.Config(str(source), out, FOLDER, row_length=64, rows=1, show=2)
    scoring.main(config)
    printed = capsys.readouterr().out
    assert printed.count("=== ") == 2
    first = "<bos><start_of_turn>user⏎\nx?<end_of_turn>⏎\n<start_of_turn>model⏎\n"
    assert printed.startswith(f"=== {source}, row 1 (id x): 2 responses\n--- prompt, ")
    assert first in printed
    assert "«c<end_of_turn>»⏎\n◀ reward" in printed
    assert printed.index("(id y)") < printed.index("3 comparisons, 6 responses, none left out")
    assert [json.loads(row)["id"] for row in out.read_text().splitlines()] == ["x", "y", "z"]


def test_models_are_found_by_name(tmp_path, monkeypatch):
    source, asked = tmp_path / "in.jsonl", []
    source.write_text('{"id": "a", "prompt": "a", "responses": ["b", "c"]}\n')

    def local(name):
        asked.append(str(name))
        return names.Local(FOLDER)

    monkeypatch.setattr(names, "local", local)
    scoring.main(
        scoring.Config(str(source), tmp_path / "out", Path("owner/name"), row_length=64, rows=1)
    )
    assert asked == ["owner/name"]
    assert len(json.loads((tmp_path / "out").read_text())["rewards"]) == 2


def second_is_lost(model, hidden, batch):
    """Rewards of which one is not finite."""
    return jnp.where(batch.response_index == 1, jnp.nan, 0.5)


def test_a_score_that_is_not_finite_is_null_and_said(tmp_path, monkeypatch, capsys):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": "a", "prompt": "a", "responses": ["b", "c", "d"]}\n')
    monkeypatch.setattr(heads, "rewards", second_is_lost)
    scoring.main(scoring.Config(str(source), out, FOLDER, row_length=64, rows=1))
    assert out.read_text() == '{"id": "a", "rewards": [0.5, null, 0.5]}\n'
    assert "NOT FINITE, null in the file: 1\n" in capsys.readouterr().out


def test_the_last_line_by_hand():
    tally = scoring.Tally(comparisons=5000, responses=10_000)
    assert scoring.summary(tally, before=1000, tokens=2_000_000, seconds=80.0) == (
        "5,000 comparisons, 10,000 responses, none left out; 1,000 of them scored before; "
        "2,000,000 tokens in 80.0 s (50.0 comparisons/s, 25,000 tokens/s)"
    )


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"rows": 0}, OptionError, "--rows must be at least 1"),
        ({"row_length": 0}, OptionError, "--row-length must be at least 1"),
        ({"show": -1}, OptionError, "--show must be at least 0"),
        ({"output": FOLDER}, DataError, "is a directory"),
        ({}, DataError, "none.jsonl"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(
    tmp_path, options, error, problem, monkeypatch
):
    monkeypatch.setattr(hub, "load", pytest.fail)
    config = scoring.Config(str(tmp_path / "none.jsonl"), tmp_path / "out.jsonl", FOLDER)
    with pytest.raises(error, match=problem):
        scoring.main(dataclasses.replace(config, **options))


def test_a_bad_row_is_named_and_nothing_is_written(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "a", "responses": ["b"]}\n{"prompt": "a", "responses": [3]}\n')
    command = [sys.executable, "-m", "jaxrm.score", "--model", FOLDER, source, out]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "in.jsonl, row 2: field 'responses[0]': expected text" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.slow
def test_no_real_score_hangs_on_what_it_is_scored_with():
    """A thousand real comparisons, a small Gemma with random weights, and Mistral's tokenizer."""
    hf = PreTrainedTokenizerFast(
        tokenizer_file=str(shared("tokenizers", "mistral_v1", "tokenizer.json")),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    template = shared("tokenizers", "chat_templates", "mistral-instruct.jinja").read_text()
    hf.chat_template = "".join(line.strip() for line in template.splitlines())
    tokenizer = ChatTokenizer(hf, "mistral")
    config = families.read(
        {
            "model_type": "gemma",
            "vocab_size": len(hf),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
        }
    )
    plain = small_model(config, HeadConfig())
    structure, params = transformer.split(plain)
    comparisons = sources.read(shared("eval", "id_eval.jsonl.gz"))[:1000]
    one = parallel.make_mesh(devices=jax.devices()[:1])
    eight = parallel.make_mesh(MeshShape(4, 2, 1))
    spread = transformer.merge(
        structure,
        jax.device_put(
            params,
            transformer.placements(
                transformer.declare(config, HeadConfig()), eight, parallel.ShardingRules()
            ),
        ),
    )

    def rewards(model, mesh, order, **options):
        given = (comparisons[i] for i in order)
        found = dict.fromkeys(range(len(comparisons)))
        for i, (comparison, values) in zip(
            order, stream(model, given, tokenizer, mesh=mesh, **options), strict=True
        ):
            assert comparison is comparisons[i]
            found[i] = values
        return np.concatenate(list(found.values()))

    straight = np.arange(len(comparisons))
    shuffled = np.random.default_rng(0).permutation(len(comparisons))
    expected = rewards(plain, one, straight, rows=4, row_length=512)
    assert np.isfinite(expected).all()
    assert expected.std() > 0.1
    ways = {
        "shuffled": (plain, one, shuffled, {"rows": 4, "row_length": 512}),
        "rows": (plain, one, straight, {"rows": 1, "row_length": 512}),
        "row length": (plain, one, straight, {"rows": 8, "row_length": 256}),
        "chunks": (plain, one, shuffled, {"rows": 4, "row_length": 512, "chunk": 100}),
        "devices": (spread, eight, straight, {"rows": 8, "row_length": 256}),
    }
    differences = {
        name: float(np.abs(rewards(*way, **options) - expected).max())
        for name, (*way, options) in ways.items()
    }
    print(differences)
    assert max(differences.values()) <= 1e-5
