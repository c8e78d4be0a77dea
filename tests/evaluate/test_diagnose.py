"""The diagnosis of planted scorers, of a model through the command, and what it refuses."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrm import parallel, score, toy
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError, ModelFileError, OptionError
from jaxrm.evaluate import diagnose as module
from jaxrm.evaluate import scorers
from jaxrm.evaluate.diagnose import Config, diagnose, write
from jaxrm.evaluate.diagnosis.cues import CUES
from jaxrm.huggingface import hub, mixture
from jaxrm.huggingface.mixture import Member
from jaxrm.models.heads import HeadConfig
from tests.evaluate.planted import by_text, pair
from tests.huggingface import hub_standin
from tests.messages_oracle import FOLDER

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine")

PAIRS = [
    pair(f"What is {word}?", f"A tree. It has {'many ' * i}leaves.", f"No {word}. Ask again.")
    for i, word in enumerate(WORDS)
]


def write_rows(path, pairs):
    rows = [
        {
            "prompt": [{"role": "user", "content": c.prompt[0].content}],
            "chosen": c.responses[0][0].content,
            "rejected": c.responses[1][0].content,
        }
        for c in pairs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def of_politeness():
    """A scorer that gives 4 to "Sure" and "hope", and otherwise knows the better answer."""

    def reward(text):
        return 4.0 * ("Sure" in text) + 4.0 * ("hope" in text) + ("tree" in text)

    calls = []

    def scorer(comparisons):
        calls.append(len(comparisons))
        return by_text(reward)(comparisons)

    found = diagnose(scorer, PAIRS)
    assert calls == [10] * (2 + len(CUES))
    return found


def test_a_polite_scorer_is_found_out_in_its_own_deviations(of_politeness):
    assert (of_politeness.comparisons, of_politeness.responses) == (10, 20)
    assert of_politeness.accuracy.value == 1.0
    # Rewards are 1 and 0: their deviation is 1/2, and 4 is 8 of them.
    assert of_politeness.spread.together.deviation == 0.5
    changes = {name: found.change.value for name, found in of_politeness.cues.items()}
    assert [value for value in changes.values() if value] == [8.0, 8.0]
    assert [name for name, value in changes.items() if value] == [cue.name for cue in CUES[:2]]
    assert of_politeness.cues[CUES[0].name].overturned.value == 1.0
    assert of_politeness.blind.swapped.value == 1.0
    assert of_politeness.geometry is None
    assert of_politeness.language is None


def test_a_scorer_without_opinions_has_a_page(tmp_path, capsys):
    nothing = diagnose(by_text(lambda text: 0.0), PAIRS)
    silent = diagnose(by_text(lambda text: np.nan), PAIRS)
    assert (nothing.accuracy.value, silent.accuracy.value) == (0, 0)
    assert silent.spread.missing == 20
    write(tmp_path, "m", {"nothing": nothing, "silent": silent}, {})
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert re.search(r"\b(nan|inf)\b", page) is None
    assert "hold no language-model head" in page
    assert "Hidden states" not in page
    record = json.loads((tmp_path / "diagnosis.json").read_text())
    assert record["sources"]["silent"]["spread"]["within"] is None
    assert record["sources"]["nothing"]["spread"]["resolution"]["float32"]["tied"]["value"] == 1.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What the command leaves of one source: the source, the record and the page."""
    folder = tmp_path_factory.mktemp("run")
    source, out = write_rows(folder / "trees.jsonl", PAIRS[:6]), folder / "deep" / "out"
    module.main(Config(FOLDER, (source,), out, rows=2, row_length=128))
    return source, json.loads((out / "diagnosis.json").read_text()), out / "report.html"


def test_the_command_writes_every_figure_and_a_page(run):
    _, record, page = run
    trees = record["sources"]["trees"]
    assert record["settings"]["model"] == str(FOLDER)
    assert (trees["comparisons"], trees["geometry"]["rank"]["n"]) == (6, 12)
    assert 1 <= trees["geometry"]["rank"]["value"] <= 12
    assert trees["language"]["token_logp"]["value"] < 0  # its embedding is its language-model head
    assert set(trees["cues"]) == {cue.name for cue in CUES}
    text = page.read_text()
    for words in ("Length", "Does it read the prompt?", "Calibration", "Hidden states", "<svg"):
        assert words in text
    assert "hold no language-model head" not in text


def test_the_figures_are_of_the_scores_that_jaxrm_score_writes(run, tmp_path):
    source, record, _ = run
    score.main(score.Config(source, tmp_path / "out.jsonl", FOLDER, row_length=128, rows=2))
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    rewards = np.array([json.loads(line)["rewards"] for line in lines])
    trees = record["sources"]["trees"]
    assert trees["spread"]["together"]["mean"] == pytest.approx(rewards.mean(), rel=1e-5)
    assert trees["accuracy"]["value"] == (rewards[:, 0] > rewards[:, 1]).mean()


def test_of_a_mixture_there_are_scores_alone_and_of_the_hub_its_revision(
    tmp_path, monkeypatch, capsys
):
    model, tokenizer = hub.load(FOLDER, None), load_tokenizer(FOLDER)
    parts = [(model, Member(name, weight=0.5)) for name in ("one", "other")]
    mixture.save(tmp_path / "mixture", parts, tokenizer)
    source = write_rows(tmp_path / "pairs.jsonl", PAIRS[:2])
    options = {"rows": 2, "row_length": 128}
    files = hub_standin.files_of(tmp_path / "mixture")
    hub_standin.of_cache(monkeypatch, tmp_path, offline=True)
    commit = hub_standin.cache(tmp_path / "hub", "owner/mixture", files)
    module.main(Config(Path("owner/mixture"), (source,), tmp_path / "out", **options))
    record = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert record["model"] == record["settings"]["model"] == "owner/mixture"
    assert record["settings"]["model's revision"] == commit
    of_pairs = record["sources"]["pairs"]
    assert of_pairs["geometry"] is None
    assert of_pairs["language"] is None
    assert f"pairs, {2 + len(CUES)} of {2 + len(CUES)}: {CUES[-1].name}" in capsys.readouterr().err
    mesh = parallel.make_mesh(devices=jax.devices()[:1])
    alone = scorers.of_model(model, tokenizer, mesh=mesh, **options)(PAIRS[:2])
    assert of_pairs["spread"]["together"]["mean"] == pytest.approx(np.mean(alone), rel=1e-5)


def test_no_more_than_items_of_a_source_are_read(tmp_path, monkeypatch, of_politeness, capsys):
    asked = {}

    def planted(model, tokenizer, comparisons, seed, progress, **options):
        asked[progress] = [c.id for c in comparisons]
        return of_politeness

    monkeypatch.setattr(module, "diagnose_model", planted)
    many = write_rows(tmp_path / "many.jsonl", PAIRS)
    few = write_rows(tmp_path / "few.jsonl", PAIRS[:2])
    module.main(Config(FOLDER, (many, few), tmp_path / "out", items=4, seed=3))
    assert asked["few"] == ["few/1", "few/2"]
    assert len(set(asked["many"])) == 4
    places = [int(name.split("/")[1]) for name in asked["many"]]
    assert places == sorted(places)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>many</b>: " in page
    first, second, *_ = shown = capsys.readouterr().out.splitlines()
    assert first == "many: 4 of 10 comparisons (--items 4)"
    assert second == "few: 2 of 2 comparisons (--items 4)"
    assert shown[-2:] == [
        f"page: {tmp_path / 'out' / 'report.html'}",
        f"every figure: {tmp_path / 'out' / 'diagnosis.json'}",
    ]
    record = json.loads((tmp_path / "out" / "diagnosis.json").read_text())
    assert record["settings"]["drawn"]["many"] == "4 of 10 comparisons"
    again = dict(asked)
    module.main(Config(FOLDER, (many, few), tmp_path / "out", items=4, seed=3))
    assert asked == again


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"items": 0}, "--items must be at least 1, not 0"),
        ({"rows": 0}, "--rows must be at least 1, not 0"),
        ({"row_length": -1}, "--row-length must be at least 1, not -1"),
        ({"data": ()}, "--data must be one source or more"),
    ],
)
def test_options_are_checked_before_anything_is_read(tmp_path, options, problem):
    config = Config(FOLDER, (str(tmp_path / "none.jsonl"),), tmp_path / "out")
    with pytest.raises(OptionError, match=problem):
        module.main(dataclasses.replace(config, **options))


def test_a_model_without_one_reward_is_refused(tmp_path):
    source = write_rows(tmp_path / "pairs.jsonl", PAIRS[:2])
    config = Config(toy.shipped_base(), (source,), tmp_path / "out")
    with pytest.raises(ModelFileError, match="holds no reward head"):
        module.main(config)
    several = hub.load(toy.shipped_base(), HeadConfig(outputs=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "load", lambda *_, **__: several)
        with pytest.raises(ModelFileError, match="the model.s head has 3"):
            module.main(config)


def test_two_sources_of_one_name_are_refused(tmp_path):
    (tmp_path / "other").mkdir()
    twins = [write_rows(tmp_path / place / "pairs.jsonl", PAIRS[:2]) for place in ("", "other")]
    with pytest.raises(DataError, match="two sources are named pairs"):
        module.main(Config(FOLDER, tuple(twins), tmp_path / "out"))


def test_rows_that_cannot_be_diagnosed_are_named_before_anything_is_scored(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out"
    turns = [{"role": "user", "content": "1?"}]
    source.write_text(json.dumps({"prompt": turns, "responses": ["a", "b"]}))
    with pytest.raises(DataError, match="in.jsonl, row 1: field 'ranks': missing"):
        module.main(Config(FOLDER, (str(source),), out))
    one = write_rows(tmp_path / "one.jsonl", PAIRS[:1] * 3)
    with pytest.raises(DataError, match="one.jsonl, row 1: field 'prompt': .* distinct"):
        module.main(Config(FOLDER, (one,), out))
    assert not (out / "report.html").exists()
