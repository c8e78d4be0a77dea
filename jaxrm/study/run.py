"""One run: methods trained from one base on named data, kept in a directory, measured, exported.

What a command of a run asks for is a `RunConfig`, which it extends with what is its own. A `Run`
checks and reads, makes a model of each method, and reports:

    run = Run(cfg, data, base, methods.values())
    for name, method in methods.items():
        run.train(name, method, strength=method.default)
    run.finish()

The same command with the same directory goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from jaxrm import parallel, toy
from jaxrm.data import chat, sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import TokenTree
from jaxrm.data.sources import Source
from jaxrm.data.store import with_columns
from jaxrm.data.training import TrainingSet, training_set
from jaxrm.errors import OptionError, require
from jaxrm.evaluate.probe import probe
from jaxrm.huggingface import adapter, card, hub, mixture, vocabulary
from jaxrm.huggingface.mixture import Member
from jaxrm.methods.bench import Bench, fitted
from jaxrm.methods.method import REFERENCE_LOGPS, Fill, Method
from jaxrm.methods.task import Model, Prepared, Task, Trained
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import Compute
from jaxrm.read import splits
from jaxrm.read.packed import Packed
from jaxrm.read.reading import read
from jaxrm.read.reference import reference_logps
from jaxrm.report import run as report
from jaxrm.train import rundir
from jaxrm.train.best import Best
from jaxrm.train.optimizer import OptimizerConfig
from jaxrm.train.rundir import check_inputs

Preset = Literal[
    "toy",
    "gemma-2b-it-lora",
    "gemma-2b-it-full",
    "mistral-7b-instruct-lora",
    "llama-3-8b-instruct-full",
]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What models are trained from, on what, how, and where the run is kept. The defaults are the
    toy's; --preset gives others."""

    preset: Preset = "toy"
    """What the other options start from: the toy's values, or the official recipe's."""
    run_dir: Path = Path("runs/run")
    """Where everything goes; the same command with the same directory resumes."""
    base: Path | None = None
    """A Gemma, Llama, Mistral or Qwen directory in Hugging Face layout; the toy base without it."""
    chat_template: Path | None = None
    """A file with the chat template, for a base that brings none."""
    data: tuple[str, ...] = ()
    """What to train on: files, directories, names on the Hub or in TFDS (see jaxrm.data.sources);
    the toy world's pairs without."""
    eval: tuple[str, ...] = ()
    """What to evaluate on, likewise; each is a split under its own name."""

    reference_cache: Path | None = None
    """Where log-probs of DPO's reference are kept between runs; in the run directory without it."""
    head: HeadConfig = HeadConfig()
    """The reward head of all models."""
    export_language_model: bool = False
    """Also export each model with its language-model head, as a ...ForCausalLM."""
    train: Literal["all", "lora", "head"] = "all"
    """Which parameters train: all of them, low-rank updates and the head, or the head alone."""
    lora: LoraConfig = LoraConfig()
    """The low-rank updates of --train lora."""

    seed: int = 0
    steps: int | None = None
    """Optimizer steps of each reward model; --epochs over the data without it."""
    epochs: int = 1
    pairs: int = 2000
    """Training pairs of the toy world."""
    held_out: int = 2000
    """Comparisons per split of the toy world."""
    max_length: int = 128
    """Longest prompt + response that is trained on, in tokens; longer ones are dropped and
    counted."""
    truncate_prompt: bool = False
    """Cut the oldest tokens of a prompt that is too long instead; a response is never cut."""
    group_prompts: bool = False
    """All comparisons of one prompt in the same optimizer step."""
    rows: int = 8
    """Rows per micro-batch, over all devices."""
    row_length: int = 160
    """Tokens per row."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    learning_rate: float = 3e-4
    warmup: float = 0.03
    weight_decay: float = 0.0
    clip: float = 5.0

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in, and is kept in where it is frozen; heads, losses and all that
    trains are float32."""
    remat: Literal["none", "dots", "full"] = "none"
    mesh: parallel.MeshShape = parallel.MeshShape()
    log_every: int = 10
    checkpoint_every: int = 100
    keep: int = 3
    """How many of the newest checkpoints stay."""
    select: Literal["last", "best"] = "last"
    """Which step's model counts: the last, or the one most accurate on the split `val`."""
    eval_every: int = 0
    """Steps between points of the held-out curves; 0: ten points over the run."""
    eval_sample: int = 200
    """Comparisons per split for the held-out curves; the final evaluation takes all, and so does
    --select best of `val`."""

    def __post_init__(self):
        counts = ("epochs", "pairs", "held_out", "rows", "row_length", "max_length")
        counts += ("accumulate", "log_every", "checkpoint_every", "keep", "eval_sample")
        for name in counts:
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            require(value >= 1, option, "at least 1", value)
        require(self.steps is None or self.steps >= 1, "--steps", "at least 1", self.steps)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.eval_every >= 0, "--eval-every", "at least 0", self.eval_every)
        require(self.head.outputs == 1, "--head.outputs", "1, a reward", self.head.outputs)
        self.optimizer()  # refuses what is out of range before anything is read

    def optimizer(self) -> OptimizerConfig:
        """AdamW with a cosine, as every reward model is trained."""
        return OptimizerConfig(
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            clip=self.clip,
        )

    def check(self) -> None:
        """Raises OptionError for options that contradict each other."""
        if bool(self.data) != bool(self.eval):
            problem = "--data and --eval go together: name sources for both, or for neither"
            raise OptionError(problem)
        if self.base is not None and self.preset == "toy":
            others = ", ".join(name for name in PRESETS if name != "toy")
            problem = "--preset toy is for the toy base: with --base, choose one of"
            raise OptionError(f"{problem} {others}")
        if self.base is None and self.preset != "toy":
            problem = f"--preset {self.preset} is for a base of your own: name it with --base"
            raise OptionError(problem)


# The reference recipe (its scripts for gemma-2b-it): LoRA on the attention of a bfloat16 trunk, and
# full fine-tuning. Batches there count pairs, 24 and 256; here a step holds as many as fit into
# rows x row_length x accumulate tokens, which is those at some 700 tokens a pair.
_LORA: dict[str, Any] = {
    "head": HeadConfig("mlp", dropout=0.1),
    "train": "lora",
    "epochs": 2,
    "max_length": 1024,
    "rows": 8,
    "row_length": 2048,
    "learning_rate": 1e-5,
    "dtype": "bfloat16",
    "remat": "full",
}
_FULL: dict[str, Any] = _LORA | {
    "train": "all",
    "epochs": 1,
    "max_length": 3000,
    "row_length": 6144,
    "accumulate": 4,
    "learning_rate": 5e-6,
}
# The toy's learning rate was chosen on its `dev` lexicon by `val` alone. The recipe's scripts hold
# no values of their own for the last two families.
PRESETS: dict[Preset, dict[str, Any]] = {
    "toy": {},
    "gemma-2b-it-lora": _LORA,
    "gemma-2b-it-full": _FULL,
    "mistral-7b-instruct-lora": _LORA,
    "llama-3-8b-instruct-full": _FULL,
}
"""Of each preset, the options that are not the toy's."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Comparisons to train on (each source with its weight), to hold out by split, and to fit the
    base's linear probe to."""

    training: list[tuple[Iterable[Comparison], float]]
    held_out: dict[str, list[Comparison]]
    probing: dict[str, list[Comparison]]


@dataclasses.dataclass(frozen=True)
class _Streamed:
    """A source's comparisons, streamed anew as often as somebody goes through them."""

    source: Source

    def __iter__(self) -> Iterator[Comparison]:
        return iter(sources.stream(self.source))


def named_data(cfg: RunConfig) -> Data:
    """What --data and --eval name."""
    training = [Source.parse(text) for text in cfg.data]
    held_out = {}
    for text in cfg.eval:
        source = Source.parse(text)
        if source.name in held_out:
            problem = f"two --eval sources are named {source.name}, as their split"
            raise OptionError(f"{text}: {problem}: add ?name=ANOTHER to one of them")
        held_out[source.name] = sources.read(source)
    streams = [(_Streamed(source), source.weight) for source in training]
    return Data(streams, held_out, probing={})


def toy_world(cfg: RunConfig, lexicon: toy.Lexicon = "report") -> Data:
    """The toy world's pairs and splits. Test labels are clean, so a probe can be fitted to more."""
    world = toy.World(seed=cfg.seed, lexicon=lexicon)
    held_out, probing = {"val": world.comparisons("val", cfg.held_out)}, {}
    for split in ("id", "ood_prompt"):
        clean = world.comparisons(split, 2 * cfg.held_out)
        held_out[split], probing[split] = clean[: cfg.held_out], clean[cfg.held_out :]
    return Data([(world.comparisons("train", cfg.pairs), 1.0)], held_out, probing)


STANDARDISED_ON = 300
"""Held-out comparisons that a method may use, as to standardise an ensemble's members."""


class Run:
    """A directory in which methods are trained from one base, on the same data."""

    def __init__(self, cfg: RunConfig, data: Data, base: Path, methods: Collection[Method]):
        """Opens the directory, and reads and checks what all models share.

        Args:
          methods: those that are going to be trained, so that all see the same batches.

        Raises:
          OptionError, RunDirError, DataError, TokenizerError, ModelFileError: before anything is
            trained.
        """
        self.cfg, self.data, self.directory = cfg, data, cfg.run_dir
        if cfg.select == "best" and "val" not in data.held_out:
            raise OptionError(
                "--select best needs a split named val, because a test split must choose nothing: "
                "write --eval 'LOCATION?name=val'"
            )
        asks = {method.ask for method in methods}
        widest = next(ask for ask in ("all", "best", "none") if ask in asks)
        self.bench = Bench(
            base,
            head=cfg.head,
            rows=cfg.rows,
            length=cfg.row_length,
            accumulate=cfg.accumulate,
            optimizer=cfg.optimizer(),
            train=cfg.train,
            lora=cfg.lora,
            compute=Compute(cfg.dtype, cfg.remat),
            mesh=parallel.make_mesh(cfg.mesh),
            shape=functools.partial(fitted, ask=widest),
            chat_template=cfg.chat_template,
            day=rundir.day(self.directory),
        )
        tokenizer = self.bench.tokenizer
        self.training = self.training_set(data.training, next(iter(methods)).keeps)
        print(f"training data: {self.training.tally}")
        vocabulary.check(self.bench.config, tokenizer, str(base))
        self.base_key = hub.fingerprint(base)
        inputs = {"the training data": self.training.key(), "the base": self.base_key}
        day = {rundir.DAY: tokenizer.dated} if tokenizer.dated else {}
        check_inputs(self.directory, inputs | day)
        self.held_out, self.probing = (
            {name: self.bench.pack(rows, "all") for name, rows in part.items()}
            for part in (data.held_out, data.probing)
        )
        self.evaluate = functools.partial(splits.evaluate, mesh=self.bench.devices)
        self.reading = {"mesh": self.bench.devices, "rows": cfg.rows, "row_length": cfg.row_length}
        tally = {"train": self.training.tally}
        self.results: dict[str, Any] = {"seeds": [cfg.seed], "data": tally, "models": {}}

    def training_set(
        self, sources_: Iterable[tuple[Iterable[Comparison], float]], keeps: Collection[str]
    ) -> TrainingSet:
        """What can be trained on, tokenised."""
        return training_set(
            sources_,
            self.bench.tokenizer,
            max_length=self.cfg.max_length,
            row_length=self.cfg.row_length,
            truncate_prompt=self.cfg.truncate_prompt,
            keeps=keeps,
        )

    # What a task takes (`jaxrm.methods.task.Data`)

    @functools.cached_property
    def comparisons(self) -> Sequence[Comparison]:
        """All of the training data, in memory, for methods that make other data of them."""
        every = [comparison for part, _ in self.data.training for comparison in part]
        return chat.settled(every, self.bench.tokenizer)

    def prepared(
        self, bench: Bench, method: Method, comparisons: Sequence[Comparison] | None
    ) -> Prepared:
        """The training data, or comparisons made of them, with the columns that the base fills."""
        training = self.training
        if comparisons is not None:
            training = self.training_set([(comparisons, 1.0)], method.keeps)
            print(f"training data, as the method prepares it: {training.tally}")
        trees = training.trees
        for fill in method.fills:
            trees = with_columns(trees, {fill.name: self._fill(fill, trees)})
        return Prepared(
            trees,
            sum(training.tally.dropped.values()),
            weights=training.weights,
            prompts=training.prompts if self.cfg.group_prompts else None,
        )

    def _fill(self, fill: Fill, trees: Sequence[TokenTree]) -> list[np.ndarray]:
        model = self.bench.load(self.cfg.seed).without_lora()
        if fill == REFERENCE_LOGPS:
            return reference_logps(
                model,
                trees,
                cache=self.cfg.reference_cache or self.directory / "reference",
                model_key=self.base_key,
                progress="reference",
                **self.reading,
            )
        options = self.reading | {"ask": fill.ask, "progress": fill.name}
        return read(model, trees, {fill.name: fill.reading}, **options)[fill.name]

    # What is done

    def measure_base(self) -> None:
        """The language ability of the base, and what a probe of its states knows."""
        model = self.bench.load(self.cfg.seed)
        self.results["base"] = self.evaluate(model, self.held_out, progress="base")
        for split, train in self.probing.items():
            knows = probe(model, train, self.held_out[split], mesh=self.bench.devices)
            self.results["base"][split]["probe"] = knows

    def train(
        self,
        name: str,
        method: Method,
        strength: float | None,
        *,
        about: str = "",
        base_name: str = "",
        texts: Sequence[TokenTree] = (),
    ) -> None:
        """Trains, measures and exports one method's model, under its name.

        Args:
          about: what its card says of its training; the method's own line without it.
          base_name: what its card calls the base.
        """
        cfg, best = self.cfg, None
        if cfg.select == "best":
            best = Best("eval/val/accuracy", "max")
        task = Task(
            self.bench,
            self,
            self._validation(),
            rate=cfg.learning_rate,
            strength=strength,
            epochs=cfg.epochs,
            seed=cfg.seed,
            steps=cfg.steps,
            texts=texts,
            run_dir=self.directory / name,
            watch=None if method.reading else self._watch,
            kept={
                "log_every": cfg.log_every,
                "checkpoint_every": cfg.checkpoint_every,
                "keep": cfg.keep,
                "best": best,
                "eval_every": cfg.eval_every,
            },
        )
        trained = task.train(method)
        self.results["models"][name] = self._measured(trained, name)
        metrics = self.directory / name / "metrics.jsonl"
        if best is not None and metrics.exists():
            chosen = dataclasses.asdict(best.among(metrics))
            self.results.setdefault("selected", {})[name] = chosen
        self._export(trained, name, about or method.about, base_name or str(self.bench.base.name))

    def finish(self) -> None:
        """Writes results.json and the report, and prints the table."""
        if jax.process_index() == 0:
            report.write(self.directory, self.results)
            print(f"{report.table(self.results)}\n\n{self.directory / 'report.html'}")

    def _watch(self, model: Model) -> Mapping[str, float]:
        figures = self.evaluate(model.reward_model(), self._sample, language=False)
        return splits.curves(figures)

    @functools.cached_property
    def _sample(self) -> dict[str, Packed]:
        """What the held-out curves are of."""
        n, sample = self.cfg.eval_sample, {}
        for name, split in self.held_out.items():
            sample[name] = self.bench.pack_trees(split.comparisons[:n], split.trees[:n])
        if self.cfg.select == "best":
            sample["val"] = self.held_out["val"]  # the choice is worth the whole of it
        return sample

    def _validation(self) -> Packed:
        """Held-out comparisons of one number of responses: of `val`, if that is a split."""
        split = self.held_out.get("val") or next(iter(self.held_out.values()))
        counts = Counter(len(comparison.responses) for comparison in split.comparisons)
        [(most, _)] = counts.most_common(1)
        alike = [c for c in split.comparisons if len(c.responses) == most]
        return self.bench.pack(alike[:STANDARDISED_ON])

    def _measured(self, trained: Trained, name: str) -> dict[str, Any]:
        if trained.is_plain:
            [part] = trained.parts
            return self.evaluate(part.model(), self.held_out, progress=name)
        figures = {}
        for split, data in self.held_out.items():
            rewards = trained.read(data.trees, progress=f"{name}, {split}", **self.reading)
            figures[split] = splits.of_rewards(rewards, data.comparisons)
        return figures

    def _export(self, trained: Trained, name: str, about: str, base_name: str) -> None:
        """Leaves the model in the layouts of others, with a card that says what was measured."""
        folder, tokenizer = self.directory / name, self.bench.tokenizer
        split, figures = next(iter(self.results["models"][name].items()))
        scale = splits.reward_scale(figures, f"the held-out split {split}")
        words = {"method": about, "base": base_name, "config": self.bench.config, "scale": scale}
        if not (trained.is_plain or trained.gate):
            members = [
                (part.model, Member(f"member_{m}", part.reads, part.weight, part.offset))
                for m, part in enumerate(trained.parts)
            ]
            said = [member for _, member in members]
            text = card.write(name, self.results, head=None, members=said, **words)
            mixture.save(folder / "export", members, tokenizer, card=text)
            return
        [part] = trained.parts
        model = part.model()
        text = card.write(
            name, self.results, head=model.head_config, gated=trained.gate is not None, **words
        )
        hub.save(model, folder / "export", tokenizer, scale=scale, gate=trained.gate, card=text)
        if self.cfg.export_language_model:
            hub.save(model.language_model(), folder / "language_model", tokenizer)
        if model.lora_config is not None and trained.gate is None:
            base = str(self.bench.base)
            adapter.save(model, folder / "adapter", base=base, tokenizer=tokenizer)
