"""GRM on Gemma (arXiv 2406.10216): a reward head regularised by keeping the model able to write.

    python -m experiments.grm_gemma                               # the toy world, on a laptop
    python -m experiments.grm_gemma --base DIR --data FILE --eval FILE FILE    # the real thing

Trains two reward models from the same base, on the same pairs in the same order, with the same
head: a Bradley-Terry `baseline` (alpha 0) and `grm`, whose loss keeps a share alpha for text
generation with the language-model head. Then it scores both on every split, in and out of
distribution, and reports their accuracy beside what is left of their language ability. Without
--base, the base is a small Gemma that ships with the toy world; --pretrain makes it from nothing
first.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Literal

import jax
from jax.sharding import Mesh

from jaxrm import cli, parallel, report
from jaxrm.data import chat, filters, planning, sources, toy
from jaxrm.data.comparison import Comparison
from jaxrm.data.loader import Loader
from jaxrm.data.packing import Ask, PackedBatch
from jaxrm.errors import DataError
from jaxrm.evaluate import splits
from jaxrm.evaluate.probe import probe
from jaxrm.evaluate.splits import Split
from jaxrm.losses import generation, preference
from jaxrm.models import heads, hub, transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.train.loop import fit
from jaxrm.train.optimizer import OptimizerConfig
from jaxrm.train.rundir import open_run
from jaxrm.train.terms import Term, Terms, reward_monitors


@dataclasses.dataclass(frozen=True)
class Config:
    """GRM and its Bradley-Terry baseline from one base. None means: as TOY or PAPER below has
    it."""

    run_dir: Path = Path("runs/grm_gemma")
    """Where everything goes; the same command with the same directory resumes."""
    base: Path | None = None
    """A Gemma directory in Hugging Face layout; the toy base without it."""
    data: tuple[Path, ...] = ()
    """Preference files to train on (JSONL, JSONL.gz, Parquet); the toy world's pairs without."""
    eval: tuple[Path, ...] = ()
    """Preference files to evaluate on, each a split named after its file."""
    pretrain: bool = False
    """Make the toy base from nothing instead of taking the shipped one."""
    lexicon: Literal["report", "dev"] = "report"
    """The toy world's words and facts: choices are made on "dev", whose base must be made first."""
    documents: int = 40_000
    """Questions whose answers --pretrain reads, once."""

    regularizer: Literal["sft", "nll", "dpo_reference_free"] = "sft"
    """What GRM's language-model head is trained for."""
    alpha: float | None = None
    """The regulariser's share of GRM's loss; the baseline's is 0."""
    beta: float = 0.1
    """The regulariser's inverse temperature."""
    head: HeadConfig = HeadConfig()
    """The reward head of both models; the paper's is --head.kind mlp."""
    train: Literal["all", "head"] = "all"
    """Which parameters train: all of them, or the reward head on a frozen trunk."""

    seed: int = 0
    steps: int | None = None
    """Optimizer steps of each reward model; --epochs over the data without it."""
    epochs: int = 1
    pairs: int = 2000
    """Training pairs of the toy world."""
    held_out: int = 2000
    """Comparisons per split of the toy world."""
    max_length: int | None = None
    """Longest prompt + response that is trained on, in tokens; longer ones are dropped and
    counted."""
    rows: int | None = None
    """Rows per micro-batch, over all devices."""
    row_length: int | None = None
    """Tokens per row."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    learning_rate: float | None = None
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 5.0

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in; parameters, heads and losses are float32."""
    remat: Literal["none", "dots", "full"] = "none"
    mesh: parallel.MeshShape = parallel.MeshShape()
    log_every: int = 10
    checkpoint_every: int = 100
    eval_every: int = 0
    """Steps between points of the held-out curves; 0: ten points over the run."""
    eval_sample: int = 200
    """Comparisons per split for the held-out curves; the final evaluation takes all."""


# What suits the size of the base: the toy's values were chosen on its `dev` lexicon by `val` alone,
# the others are the paper's for full fine-tuning (learning rate, alpha) at lengths that one device
# holds.
TOY = {"alpha": 0.1, "learning_rate": 1e-4, "max_length": 128, "rows": 8, "row_length": 160}
PAPER = {"alpha": 0.01, "learning_rate": 5e-6, "max_length": 1024, "rows": 8, "row_length": 2048}

RULES = parallel.ShardingRules()
"""Which logical axis of a parameter lies over which axis of the mesh."""


def loss_fn(
    model: RewardModel, batch: PackedBatch, rng: jax.Array, *, alpha: float, cfg: Config
) -> Terms:
    """(1 - alpha) Bradley-Terry + alpha text generation; with alpha 0, Bradley-Terry alone."""
    hidden = model.hidden(batch)
    rewards = heads.rewards(model, hidden, batch, rng)
    reward = preference.bradley_terry(*batch.pairs(rewards))
    per_pair = batch.pair_weight * batch.pair_mask
    terms = {"reward": Term(1 - alpha, reward, per_pair), **reward_monitors(rewards, batch)}
    if alpha == 0:
        return terms
    logps = heads.response_logps(model, hidden, batch)
    if cfg.regularizer == "dpo_reference_free":
        contrast = generation.dpo_reference_free(*batch.pairs(logps), cfg.beta)
        return terms | {"text": Term(alpha, contrast, per_pair)}
    # The best response counts once per comparison, not once per pair that it wins.
    best = batch.best(logps)
    text = generation.sft(best, cfg.beta) if cfg.regularizer == "sft" else generation.nll(best)
    return terms | {"text": Term(alpha, text, batch.best_mask)}


def main(cfg: Config) -> None:
    """Trains both models, evaluates them on every split, and writes the report."""
    parallel.start()
    cfg = resolve(cfg)
    print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
    mesh = parallel.make_mesh(cfg.mesh)
    data = files(cfg) if cfg.data or cfg.eval else toy_world(cfg)
    run = open_run(cfg.run_dir, cfg)
    base = cfg.base or (pretrain(cfg, run / "base", mesh) if cfg.pretrain else toy.shipped_base())

    tokenizer = chat.load_tokenizer(base)
    trees = chat.tokenize(data.training, tokenizer)
    kept, tally = filters.for_training(data.training, trees, cfg.max_length, cfg.row_length)
    if not kept:
        raise DataError(f"nothing left to train on: {tally}")
    trees = [trees[i] for i in kept]
    print(f"training data: {tally}")
    if folded := tokenizer.folded(data.training):
        print(f"training data: {folded} system messages moved into the first user turn")
    held_out, probing = (
        {name: Split(rows, chat.tokenize(rows, tokenizer)) for name, rows in part.items()}
        for part in (data.held_out, data.probing)
    )

    scoring = {"mesh": mesh, "rows": cfg.rows, "row_length": cfg.row_length}
    evaluate = functools.partial(splits.evaluate, **scoring)
    sample = {name: split.head(cfg.eval_sample) for name, split in held_out.items()}
    results = {"seeds": [cfg.seed], "data": {"train": tally}, "models": {}}
    for name, alpha in {"baseline": 0.0, "grm": cfg.alpha}.items():
        model = hub.load(
            base,
            cfg.head,
            compute=Compute(cfg.dtype, cfg.remat),
            mesh=mesh,
            rules=RULES,
            seed=cfg.seed,
        )
        if "base" not in results:
            results["base"] = evaluate(model, held_out, progress="base")
            for split, train in probing.items():
                fitted = probe(model, train, held_out[split], **scoring)
                results["base"][split]["probe"] = fitted
        shape = planning.fit_shape(
            trees, rows=cfg.rows, length=cfg.row_length, ask=asked(cfg, alpha)
        )
        loader = Loader(trees, shape, mesh=mesh, seed=cfg.seed, accumulate=cfg.accumulate)
        steps = cfg.steps or loader.steps(cfg.epochs)
        model = fit(
            model,
            functools.partial(loss_fn, alpha=alpha, cfg=cfg),
            loader,
            OptimizerConfig(
                learning_rate=cfg.learning_rate,
                warmup=cfg.warmup,
                weight_decay=cfg.weight_decay,
                clip=cfg.clip,
            ),
            steps=steps,
            run_dir=run / name,
            mesh=mesh,
            rules=RULES,
            trainable=lambda path: cfg.train == "all" or path.startswith("reward_head"),
            seed=cfg.seed,
            log_every=cfg.log_every,
            checkpoint_every=cfg.checkpoint_every,
            evaluate=lambda model: splits.curves(evaluate(model, sample, language=False)),
            eval_every=cfg.eval_every or max(1, steps // 10),
        )
        hub.save(model, run / name / "export", tokenizer)
        results["models"][name] = evaluate(model, held_out, progress=name)
    if jax.process_index() == 0:
        report.write(run, results)
        print(f"{report.table(results)}\n\n{run / 'report.html'}")


def resolve(cfg: Config) -> Config:
    """The configuration with every None that depends on the base's size filled in."""
    if cfg.base is not None and cfg.pretrain:
        raise DataError("--pretrain makes a base and --base names one: choose one of them")
    if cfg.base is None and cfg.lexicon != "report" and not cfg.pretrain:
        raise DataError("the shipped base has read the report lexicon: add --pretrain or --base")
    scale = TOY if cfg.base is None else PAPER
    unset = {name: value for name, value in scale.items() if getattr(cfg, name) is None}
    return dataclasses.replace(cfg, **unset)


def asked(cfg: Config, alpha: float) -> Ask:
    """Whose tokens the regulariser needs: contrasts both responses, or writes the best one."""
    if alpha == 0:
        return "none"
    return "all" if cfg.regularizer == "dpo_reference_free" else "best"


@dataclasses.dataclass(frozen=True)
class Data:
    """Comparisons to train on, to hold out by split, and to fit the base's linear probe to."""

    training: list[Comparison]
    held_out: dict[str, list[Comparison]]
    probing: dict[str, list[Comparison]]


def files(cfg: Config) -> Data:
    """What --data and --eval name."""
    if not cfg.data or not cfg.eval:
        raise DataError("--data and --eval go together: name files for both, or for neither")
    training = [comparison for path in cfg.data for comparison in sources.read(path)]
    held_out = {}
    for path in cfg.eval:
        name = path.name.split(".")[0]
        if name in held_out:
            raise DataError(f"{path}: two --eval files are named {name}, which names their split")
        held_out[name] = sources.read(path)
    return Data(training, held_out, probing={})


def toy_world(cfg: Config) -> Data:
    """The toy world's pairs and splits. Test labels are clean, so a probe can be fitted to more."""
    world = toy.World(seed=cfg.seed, lexicon=cfg.lexicon)
    held_out, probing = {"val": world.comparisons("val", cfg.held_out)}, {}
    for split in ("id", "ood_prompt"):
        clean = world.comparisons(split, 2 * cfg.held_out)
        held_out[split], probing[split] = clean[: cfg.held_out], clean[cfg.held_out :]
    return Data(world.comparisons("train", cfg.pairs), held_out, probing)


def pretrain(cfg: Config, run: Path, mesh: Mesh) -> Path:
    """Makes the toy base: a language model of the world's text, good answers and flawed ones.

    The shipped base is what this leaves in `run/export`.
    """
    tokenizer = chat.load_tokenizer(toy.TOKENIZER)
    text = toy.World(seed=0, lexicon=cfg.lexicon).pretraining_text(cfg.documents)
    trees = chat.tokenize(text, tokenizer)
    shape = planning.fit_shape(trees, rows=8, length=160, ask="all")
    loader = Loader(trees, shape, mesh=mesh, seed=0)
    config = ModelConfig.from_hf(json.loads((toy.TOKENIZER / "config.json").read_text()))

    def language_loss(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logps = heads.target_logps(model, model.hidden(batch), batch)
        return {"text": Term(1.0, -logps, batch.target_mask)}

    model = fit(
        transformer.create(config, None, seed=0, mesh=mesh, rules=RULES),
        language_loss,
        loader,
        OptimizerConfig(learning_rate=2e-3, warmup=0.025, floor=0.02, b2=0.98, clip=1.0),
        steps=loader.steps(1),
        run_dir=run,
        mesh=mesh,
        rules=RULES,
        checkpoint_every=cfg.checkpoint_every,
    )
    hub.save(model, run / "export", tokenizer, dtype="bfloat16")
    return run / "export"


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
