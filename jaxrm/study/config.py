"""What a study on several seeds is asked, and where it goes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxrm import toy
from jaxrm.errors import require
from jaxrm.huggingface import names
from jaxrm.huggingface.names import Local
from jaxrm.study.draws import Condition
from jaxrm.study.trials import Contest, Trials
from jaxrm.train import rundir


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """The options that all studies have; each adds its own, and its `run_dir`."""

    run_dir: Path = Path("runs/study")
    """Where the results go; the same command goes on where it was stopped."""
    base: Path | None = None
    """What to train from, in Hugging Face layout: a directory, or a name on the Hub (owner/name or
    owner/name@revision); the toy base that ships without it."""
    seed: int = 0
    """The first; seeds that choose follow the last."""
    seeds: int = 6
    """How many are measured; below 6 no interval excludes 0."""
    workers: int | None = None
    """Processes; one for each core of a CPU without it, one on an accelerator."""

    def __post_init__(self):
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(self.workers is None or self.workers >= 1, "--workers", "at least 1", self.workers)
        self.at_least(2, "seeds")

    def at_least(self, least: int, *options: str) -> None:
        """Raises OptionError where one of these options is less."""
        for option in options:
            value = getattr(self, option)
            require(value >= least, f"--{option.replace('_', '-')}", f"at least {least}", value)

    @property
    def start(self) -> Path:
        """The directory to train from; ModelFileError as `names.local` raises it."""
        return self._found.directory

    @functools.cached_property
    def _found(self) -> Local:
        """Where the base lies. A name on the Hub means the commit that the study began with."""
        if self.base is None:
            return Local(toy.shipped_base())
        return names.local(self.base, rundir.recorded(self.run_dir, rundir.REVISION))

    @property
    def measured(self) -> range:
        """The seeds that are measured."""
        return range(self.seed, self.seed + self.seeds)

    def open(self) -> Path:
        """Opens the run directory, in which the base's revision is kept, and prints the options."""
        directory = rundir.open_run(self.run_dir, self, [self.base])
        if self._found.revision:
            rundir.check_inputs(directory, {rundir.REVISION: self._found.revision})
        print(json.dumps(dataclasses.asdict(self), indent=2, default=str))
        return directory

    def contest(
        self,
        methods: Iterable[str],
        conditions: Sequence[Condition],
        trials: Trials = lambda method, rate: (),
        **options: Any,
    ) -> Contest:
        """Its runs, whose records lie in the run directory; arguments as for `Contest`."""
        place = self.start, self.run_dir / "jobs"
        return Contest(tuple(methods), conditions, trials, *place, workers=self.workers, **options)
