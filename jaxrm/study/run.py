"""One run: methods trained from one base on named data, kept in a directory, measured, exported.

What a command of a run asks for is a `RunConfig`, which it extends with what is its own. A `Run`
checks and reads, makes a model of each method, and reports:

    run = Run(cfg, data, methods.values())
    for name, method in methods.items():
        run.train(name, method, strength=method.default)
    run.finish()

The same command with the same directory goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrm import parallel, toy
from jaxrm.data import chat, shown
from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import TokenTree
from jaxrm.data.store import with_columns
from jaxrm.data.training import TrainingSet, training_set
from jaxrm.errors import OptionError
from jaxrm.evaluate.probe import probe
from jaxrm.huggingface import adapter, card, hub, mixture, names, push, vocabulary
from jaxrm.huggingface.card import Kind
from jaxrm.huggingface.mixture import Member
from jaxrm.huggingface.names import Local
from jaxrm.methods.bench import Bench, fitted
from jaxrm.methods.method import REFERENCE_LOGPS, Fill, Method
from jaxrm.methods.task import Model, Prepared, Task, Trained
from jaxrm.models.transformer import Compute
from jaxrm.read import splits
from jaxrm.read.packed import Packed
from jaxrm.read.reading import read
from jaxrm.read.reference import reference_logps
from jaxrm.report import run as report
from jaxrm.study import ending
from jaxrm.study.runconfig import RunConfig
from jaxrm.study.rundata import Data
from jaxrm.train import loggers, rundir
from jaxrm.train.best import Best
from jaxrm.train.rundir import check_inputs

STANDARDISED_ON = 300
"""Held-out comparisons that a method may use, as to standardise an ensemble's members."""


class Run:
    """A directory in which methods are trained from one base, on the same data."""

    def __init__(
        self, cfg: RunConfig, data: Data, methods: Collection[Method], base: Path | None = None
    ):
        """Reads and checks what all models share, prints the options and what a model will read.

        Args:
          cfg: whose directory is open (`open_run`).
          methods: those that are going to be trained, so that all see the same batches.
          base: in place of the one that `cfg` names.

        Raises:
          OptionError, RunDirError, DataError, TokenizerError, ModelFileError: before anything is
            trained.
        """
        self.cfg, self.data, self.directory = cfg, data, cfg.run_dir
        if cfg.select == "best":
            _check_choosable(data, methods)
        if base is None and cfg.base is None:
            base = toy.shipped_base()
        # A name on the Hub means the commit that the run began with.
        begun_on = rundir.recorded(self.directory, rundir.REVISION)
        self.base = names.local(cfg.base, begun_on) if base is None else Local(base)
        base = self.base.directory
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
        vocabulary.check(self.bench.config, tokenizer, str(base))
        self.base_key = hub.fingerprint(base)
        inputs = {"the training data": self.training.key(), "the base": self.base_key}
        inputs |= {rundir.DAY: tokenizer.dated} if tokenizer.dated else {}
        inputs |= {rundir.REVISION: self.base.revision} if self.base.revision else {}
        check_inputs(self.directory, inputs)
        self.held_out, self.probing = (
            {name: self.bench.pack(rows, "all") for name, rows in part.items()}
            for part in (data.held_out, data.probing)
        )
        self.evaluate = functools.partial(splits.evaluate, mesh=self.bench.devices)
        self.reading = {"mesh": self.bench.devices, "rows": cfg.rows, "row_length": cfg.row_length}
        tally = {"train": self.training.tally}
        self.results: dict[str, Any] = {"seeds": [cfg.seed], "data": tally, "models": {}}
        self.exports: dict[str, Kind] = {}
        # Here, so that what was wrong before is not looked for under all of this.
        print(json.dumps(dataclasses.asdict(cfg), indent=2, default=str))
        print(f"training data: {self.training.tally}")
        first = next(iter(data.training[0][0]))
        [tree] = self.bench.trees([first])
        print(f"\nAs the model reads it:\n{shown.text(first, tree, tokenizer)}")

    @property
    def base_name(self) -> str:
        """What people call the base."""
        if self.cfg.base is None:
            return "jaxrm's toy base"
        return str(self.cfg.base if self.base.revision else self.base.directory.name)

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
        texts: Sequence[TokenTree] = (),
    ) -> None:
        """Trains, measures and exports one method's model, under its name.

        Args:
          about: what its card says of its training; the method's own line without it.
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
                "loggers": loggers.chosen(cfg.log, cfg),
            },
        )
        trained = task.train(method)
        self.results["models"][name] = self._measured(trained, name)
        metrics = self.directory / name / "metrics.jsonl"
        if best is not None and metrics.exists():
            chosen = dataclasses.asdict(best.among(metrics))
            self.results.setdefault("selected", {})[name] = chosen
        self._export(trained, name, about or method.about)

    def finish(self) -> None:
        """Writes results.json and the report, uploads what is to be, and prints the table, where
        everything lies and what it is good for."""
        if jax.process_index() != 0:
            return
        report.write(self.directory, self.results)
        print(f"{report.table(self.results)}\n\n{self.directory / 'report.html'}\n")
        for name, kind in self.exports.items():
            print(ending.of_model(name, self.directory / name, kind))
        for name in self.exports if self.cfg.push else ():
            place = self.cfg.push if len(self.exports) == 1 else f"{self.cfg.push}-{name}"
            print(f"{name}: uploaded to {push.push(self.directory / name / 'export', place)}")

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

    def _export(self, trained: Trained, name: str, about: str) -> None:
        """Leaves the model in the layouts of others, with a card that says what was measured, in
        the dtype that it computed in."""
        folder, tokenizer, dtype = self.directory / name, self.bench.tokenizer, self.cfg.dtype
        split, figures = next(iter(self.results["models"][name].items()))
        scale = splits.reward_scale(figures, f"the held-out split {split}")
        words = {"method": about, "base": self.base_name, "scale": scale}
        if not (trained.is_plain or trained.gate):
            members = [
                (part.model, Member(f"member_{m}", part.reads, part.weight, part.offset))
                for m, part in enumerate(trained.parts)
            ]
            kind = Kind(self.bench.config, None, members=tuple(member for _, member in members))
            text = card.write(name, self.results, kind, **words)
            options = {"scale": scale, "dtype": dtype, "card": text}
            mixture.save(folder / "export", members, tokenizer, **options)
        else:
            [part] = trained.parts
            model, gate = part.model(), trained.gate
            kind = Kind(self.bench.config, model.head_config, gated=gate is not None)
            text = card.write(name, self.results, kind, **words)
            options = {"scale": scale, "gate": gate, "dtype": dtype, "card": text}
            hub.save(model, folder / "export", tokenizer, **options)
            if self.cfg.export_language_model:
                language_model = model.language_model()
                hub.save(language_model, folder / "language_model", tokenizer, dtype=dtype)
            if model.lora_config is not None and gate is None:
                base = str(self.base.directory)
                if self.base.revision:
                    base = str(self.cfg.base).partition("@")[0]
                adapter.save(model, folder / "adapter", base=base, tokenizer=tokenizer)
        self.exports[name] = kind


def _check_choosable(data: Data, methods: Iterable[Method]) -> None:
    """Raises OptionError where no step can be chosen by the accuracy on `val`."""
    if "val" not in data.held_out:
        raise OptionError(
            "--select best needs a split named val, because a test split must choose nothing: "
            "write --eval 'LOCATION?name=val'"
        )
    for method in methods:
        if method.reading is not None:
            problem = "is not scored in the course of its training: leave --select best out"
            raise OptionError(f"--select best: the method ({method.about}) {problem}")
