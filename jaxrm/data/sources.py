"""Comparisons from files, directories, the Hugging Face Hub and TFDS, by name.

A source is named `LOCATION` or `LOCATION?key=value&key=value`:

    pairs.jsonl.gz                                         a file
    data/ultrafeedback?split=test                          a directory of data files
    llm-blender/Unified-Feedback?config=all&every=20       a name on the Hub
    tfds:jaxrm_preferences                                 a data set that TFDS has prepared here
    answers.jsonl?text=chat&ignore=notes,context           text as turns, two columns left out
    pairs.jsonl?columns=log_ratios,base_score              numbers that come along (`Comparison`)

`jaxrm.data.rows` says what a location may be, `jaxrm.data.formats` which rows are known.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import typing
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrm.data import formats, rows
from jaxrm.data.asked import Text
from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where comparisons come from, which of them, and how often they are shown.

    `every` thins as GRM does (arXiv 2406.10216, `load_datasets.py` of its repository): ties are
    left out first, then the first of every `every` comparisons is kept, without a random choice. Of
    Unified-Feedback's configuration `all`, 2 gives its 400K, 20 its 40K. Its repository has no rule
    for 8K: 100 gives about as many. Its evaluation takes all of the split `val`.

    Attributes:
        location: a file, a directory, "owner/name" on the Hub, or "tfds:name[/config][:version]".
        config: the data set's configuration, where it has several.
        split: the part of the data set.
        label: which judgement to learn from, where rows hold several (`jaxrm.data.formats`).
        every: keep one comparison of so many; with 1, all are kept, ties too.
        weight: how often one epoch shows each comparison.
        name: a short name, as of a split; by default the location's last part, and the
            configuration and split if not usual.
        text: how a question and answers of text are meant: "chat" for a conversation of one turn,
            "raw" for text as it stands; "" leaves it to the tokenizer's chat template.
        ignore: columns, and fields of messages, that are read as if they were not there.
        columns: columns of numbers that every comparison gets under their names: one of the pair, a
            list of one per response, or of a list per response.
    """

    location: str
    config: str = ""
    split: str = "train"
    label: str = ""
    every: int = 1
    weight: float = 1.0
    name: str = ""
    text: Text = ""
    ignore: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.location:
            raise DataError("a source needs a location: a file, a directory or a name")
        if not self.split:
            raise DataError(f"{self.location}: split may not be empty")
        if self.text not in typing.get_args(Text):
            raise DataError(f"{self.location}: text must be chat or raw, not {self.text!r}")
        if self.every < 1:
            raise DataError(f"{self.location}: every must be at least 1, not {self.every}")
        if not 0 < self.weight < math.inf:
            raise DataError(
                f"{self.location}: weight must be above 0 and finite, not {self.weight}"
            )
        if not self.name:
            object.__setattr__(self, "name", self._usual_name())

    @property
    def reading(self) -> dict[str, Any]:
        """How its rows are to be read, by the names that `formats.comparisons` has for it."""
        plain = {"label": self.label, "text": self.text, "ignore": self.ignore}
        return plain | {"carried": self.columns}

    @classmethod
    def parse(cls, text: str | Path) -> Source:
        """A source out of `LOCATION` or `LOCATION?key=value&key=value`.

        Raises DataError, listing the keys, for one that is not known or a value that is no number.
        """
        location, mark, options = str(text).partition("?")
        if not mark or os.path.exists(text):  # a "?" may be part of a file's name
            return cls(str(text))
        values = {}
        for option in options.split("&"):
            key, equals, value = option.partition("=")
            if not equals or key not in OPTIONS or key in values:
                problem = f"{option!r} is not one of {', '.join(f'{key}=' for key in OPTIONS)}"
                raise DataError(f"{text}: {problem}, each at most once")
            try:
                values[key] = OPTIONS[key](value)
            except ValueError as error:
                expected = "a whole number" if OPTIONS[key] is int else "a number"
                raise DataError(f"{text}: {key} must be {expected}, not {value!r}") from error
        return cls(location, **values)

    def _usual_name(self) -> str:
        if self.location.startswith(rows.TFDS):
            base = self.location.removeprefix(rows.TFDS).partition(":")[0].replace("/", "-")
        else:
            base = os.path.basename(os.path.abspath(self.location))
            base = base.removesuffix(rows.suffix_of(base))
        parts = (base, self.config, self.split if self.split != "train" else "")
        return "-".join(part for part in parts if part)


def _listed(names: str) -> tuple[str, ...]:
    return tuple(urllib.parse.unquote(name.strip()) for name in names.split(",") if name.strip())


OPTIONS = {
    "config": str,
    "split": str,
    "label": str,
    "every": int,
    "weight": float,
    "name": str,
    "text": str,
    "ignore": _listed,
    "columns": _listed,
}
"""What may follow a location, and the type of each."""


def stream(source: Source | str | Path) -> Iterator[Comparison]:
    """The comparisons of a source in order, read as they are asked for.

    A comparison without an id is named `<name of the source>/<row>`, counting from 1. Raises
    DataError naming the file, the row and the field, and where there is nothing to read.
    """
    source = source if isinstance(source, Source) else Source.parse(source)
    located = rows.rows(source.location, source.config, source.split)
    comparisons = formats.comparisons(located, stem=source.name, **source.reading)
    if source.every > 1:
        comparisons = _thinned(comparisons, source)
    first = next(comparisons, None)
    if first is None:
        raise DataError(f"{source.location}: holds no rows{' but ties' * (source.every > 1)}")
    yield first
    yield from comparisons


def read(source: Source | str | Path) -> list[Comparison]:
    """All comparisons of a source, in order: `stream` as a list."""
    return list(stream(source))


def _thinned(comparisons: Iterator[Comparison], source: Source) -> Iterator[Comparison]:
    """The first of every `source.every` comparisons that are no ties; says how many there were."""
    count = ties = 0
    for comparison in comparisons:
        if comparison.is_tie:
            ties += 1
            continue
        if count % source.every == 0:
            yield comparison
        count += 1
    kept = -(-count // source.every)
    log.info("%s: kept %d of %d, after %d ties", source.location, kept, count, ties)
