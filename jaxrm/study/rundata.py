"""The comparisons of a run: what --data and --eval name, or the toy world's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from jaxrm import toy
from jaxrm.data import sources
from jaxrm.data.comparison import Comparison
from jaxrm.data.sources import Source
from jaxrm.errors import DataError, OptionError
from jaxrm.read.accuracy import require_order
from jaxrm.study.draws import is_held_out
from jaxrm.study.runconfig import RunConfig


@dataclasses.dataclass(frozen=True)
class Data:
    """Comparisons to train on (each source with its weight), to hold out by split, and to fit the
    base's linear probe to."""

    training: list[tuple[Iterable[Comparison], float]]
    held_out: dict[str, list[Comparison]]
    probing: dict[str, list[Comparison]]


@dataclasses.dataclass(frozen=True)
class _Streamed:
    """A source's comparisons, streamed anew as often as somebody goes through them; with a seed,
    those that it does not hold out."""

    source: Source
    seed: int | None = None

    def __iter__(self) -> Iterator[Comparison]:
        every = iter(sources.stream(self.source))
        if self.seed is None:
            return every
        return (each for each in every if not is_held_out(each, self.seed))


def named_data(cfg: RunConfig) -> Data:
    """What --data and --eval name.

    Raises:
      OptionError: two splits have one name.
      DataError: as `sources.stream`; what is to be measured on has no order, or nothing is held
        out.
    """
    training = [Source.parse(text) for text in cfg.data]
    held_out: dict[str, list[Comparison]] = {}
    for text in cfg.eval:
        source = Source.parse(text)
        if source.name in held_out:
            problem = f"two --eval sources are named {source.name}, as their split"
            raise OptionError(f"{text}: {problem}: add ?name=ANOTHER to one of them")
        held_out[source.name] = sources.read(source)
    if not cfg.eval:
        held_out["val"] = _held_out(training, cfg.seed)
    for rows in held_out.values():
        require_order(rows)
    seed = None if cfg.eval else cfg.seed
    streams = [(_Streamed(source, seed), source.weight) for source in training]
    return Data(streams, held_out, probing={})


def _held_out(training: Sequence[Source], seed: int) -> list[Comparison]:
    """Those with an order whose prompts a seed keeps from training."""
    every = [c for source in training for c in sources.stream(source) if is_held_out(c, seed)]
    ordered = [c for c in every if c.ranks is not None and not c.is_tie]
    if not ordered:
        problem = "a tenth of the prompts is held out, which of so few are none with an order"
        raise DataError(f"without --eval {problem}: name what to measure on with --eval")
    print(
        f"no --eval: {len(every):,} comparisons, of a tenth of the prompts of --data, are held out "
        f"of training; the split val has the {len(ordered):,} that order anything"
    )
    return ordered


def toy_world(cfg: RunConfig, lexicon: toy.Lexicon = "report") -> Data:
    """The toy world's pairs and splits. Test labels are clean, so a probe can be fitted to more."""
    world = toy.World(seed=cfg.seed, lexicon=lexicon)
    held_out, probing = {"val": world.comparisons("val", cfg.held_out)}, {}
    for split in ("id", "ood_prompt"):
        clean = world.comparisons(split, 2 * cfg.held_out)
        held_out[split], probing[split] = clean[: cfg.held_out], clean[cfg.held_out :]
    return Data([(world.comparisons("train", cfg.pairs), 1.0)], held_out, probing)
