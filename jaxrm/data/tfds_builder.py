"""Preference data as a TFDS data set, prepared without TensorFlow.

    python -m jaxrm.data.tfds_builder pairs.jsonl DIR

prepares `DIR/jaxrm_preferences/1.0.0` out of any source (`jaxrm.data.sources`), which then reads
alike from DIR. An example is one text feature, a comparison as JSON: without TensorFlow TFDS cannot
write lists of lists, such as responses of several messages, and its records hold every number with
a fraction as a float32, whatever type the feature declares.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
import tyro

from jaxrm import cli, files
from jaxrm.data import formats, sources
from jaxrm.data.rows import RECORD
from jaxrm.data.sources import Source
from jaxrm.errors import DataError


class Preferences(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Comparisons of one source, in order, as the split that the source names."""

    name = "jaxrm_preferences"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, source: Source, **options):
        self.source = source
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        told = "A prompt, responses and what is known of them: a row of the form `responses`."
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Comparisons of responses to prompts, from {self.source.location}.",
            features=tfds.features.FeaturesDict({RECORD: tfds.features.Text(doc=told)}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        return {self.source.split: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
        for number, comparison in enumerate(sources.stream(self.source)):
            yield number, {RECORD: json.dumps(formats.to_row(comparison), ensure_ascii=False)}


def prepare(source: Source | str | Path, directory: str | Path) -> Path:
    """Prepares a source as TFDS data in `directory`, whole or not at all.

    Returns:
        The prepared directory, two levels below: `directory/jaxrm_preferences/1.0.0`.

    Raises:
        DataError: the source cannot be read, or `directory` holds such data already.
        OptionError: `directory` is what the source is read from, or lies in it.
    """
    source = source if isinstance(source, Source) else Source.parse(source)
    files.check_apart(Path(directory), [source.location])
    builder = Preferences(source=source, data_dir=directory, file_format="array_record")
    if builder.data_path.exists():  # TFDS would leave it as it is and say nothing
        raise DataError(f"{builder.data_path}: is prepared already: remove it or name another")
    with tempfile.TemporaryDirectory() as downloads:  # stays empty, but TFDS makes it
        builder.download_and_prepare(download_dir=downloads)
    return Path(builder.data_path)


@dataclasses.dataclass(frozen=True)
class Config:
    """Prepare preference data as a TFDS data set."""

    source: tyro.conf.Positional[str]
    """A source of comparisons: a file, a directory, a name on the Hub or in TFDS (see
    jaxrm.data.sources)."""
    directory: tyro.conf.Positional[Path]
    """A directory to prepare it in."""


def main(config: Config) -> None:
    """Prepares the source and says where."""
    print(prepare(config.source, config.directory))


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
