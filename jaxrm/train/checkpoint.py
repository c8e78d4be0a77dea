"""Saving and restoring a run: Orbax, asynchronously, with a manifest of hashes for every step.

Orbax writes a step directory in the background and commits it; what it restores it does not check
(a flipped byte comes back as a weight). So once a step is committed, the run's progress and then a
manifest with the SHA-256 of each file are written into it, and nothing is restored that does not
match its manifest. The manifest comes last: a step that has none is a save that was interrupted,
and counts as never made.

Old steps are deleted here too, after that. Orbax would delete them before the newest has its
manifest, and tells its best step by metrics that it reads unchecked: with a damaged file it would
take the second best, without a word.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxrm.errors import CheckpointError
from jaxrm.train.best import Best, Leader

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PROGRESS = "progress.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run has come, which every checkpoint holds beside the state.

    Attributes:
      step: optimizer steps done. It is the loader's position too, as each step takes one window.
      best: what makes a step the best one, in a run that asks for it.
      leader: the best of all steps evaluated so far, once there is one.
    """

    step: int
    best: Best | None = None
    leader: Leader | None = None


class Checkpoints:
    """The checkpoints of one run, `directory/<step>/`: the newest `keep`, and the best beside them.

    The leader that the progress of any of the newest names is kept, so that a run can go on from
    each of them. That is one more step at most: leaders that are not themselves among the newest
    are all the same one.

    A context manager: leaving it waits for the save under way. Call `latest` before the first
    `save`, because it clears away what an interrupted run left behind.
    """

    def __init__(self, directory: Path, keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        # Orbax logs some thirty lines for each save through absl's logger.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.directory, self.keep = directory.absolute(), keep
        self._manager = ocp.CheckpointManager(
            self.directory, options=ocp.CheckpointManagerOptions(cleanup_tmp_directories=True)
        )
        self._background = concurrent.futures.ThreadPoolExecutor(1, "seal")
        self._sealing: concurrent.futures.Future[None] | None = None
        self._verified: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._wait()
        finally:
            self._background.shutdown()
            self._manager.close()

    def save(self, state: Any, progress: Progress) -> None:
        """Save a pytree of arrays and the progress that it has made.

        Returns once the arrays are copied to the host, so that donating them afterwards is safe;
        writing goes on behind. Waits for the save before it, and raises what went wrong there.
        """
        self._wait()
        self._verified.clear()
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state)),
            force=True,
        )
        self._sealing = self._background.submit(self._seal, progress)

    def latest(self) -> Progress | None:
        """The newest intact step's progress; None where no save ever finished.

        Newer steps that are damaged or unfinished are logged and deleted, so that training can
        reach and save them again.

        Raises CheckpointError when steps were saved but all of them are damaged, or the leader is.
        """
        rejected: dict[int, str] = {}
        progress = None
        for step in self._steps():
            fault = _fault(self.directory / str(step))
            if fault is None:
                self._verified.add(step)
                progress = _read_progress(self.directory / str(step))
                break
            log.warning("checkpoint %d %s: skipped", step, fault)
            rejected[step] = fault
        damaged = [f"step {step} {fault}" for step, fault in rejected.items() if fault != _UNSEALED]
        if progress is None and damaged:
            raise CheckpointError(
                f"no checkpoint in {self.directory} is intact: {'; '.join(damaged)}. Restore them "
                "from a copy, or delete the directory to train from the beginning"
            )
        if progress is not None and progress.leader is not None:
            self._verify(progress.leader.step)
        # Every process has judged the same files before one of them deletes any.
        multihost_utils.sync_global_devices("checkpoints verified")
        if jax.process_index() == 0:
            for step in rejected:
                shutil.rmtree(self.directory / str(step))
        multihost_utils.sync_global_devices("checkpoints cleared")
        self._manager.reload()
        return progress

    def restore(self, step: int, abstract: Any) -> Any:
        """The state that step `step` saved.

        `abstract` is the state's tree with ShapeDtypeStructs as leaves. Arrays arrive with the
        shardings that it has, whichever they were saved with.

        Raises CheckpointError when the step is damaged.
        """
        self._wait()
        # The first process seals; the others must not look before that.
        multihost_utils.sync_global_devices("checkpoints sealed")
        self._verify(step)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )
        return restored["state"]

    def _verify(self, step: int) -> None:
        """Raise unless every file of a step is as it was saved, now or since the last save."""
        if step in self._verified:
            return
        fault = _fault(self.directory / str(step))
        if fault is not None:
            raise CheckpointError(
                f"checkpoint {step} in {self.directory} {fault}, and no other can stand in for it: "
                "restore it from a copy, or delete the directory to train from the beginning"
            )
        self._verified.add(step)

    def _steps(self) -> list[int]:
        """Every step with a directory of its own, committed or not, newest first."""
        names = (path.name for path in self.directory.iterdir() if path.is_dir())
        return sorted((int(name) for name in names if re.fullmatch(r"\d+", name)), reverse=True)

    def _seal(self, progress: Progress) -> None:
        """Make a step count once Orbax has committed it, and delete those that it makes old."""
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            directory = self.directory / str(progress.step)
            (directory / PROGRESS).write_text(json.dumps(dataclasses.asdict(progress), indent=1))
            text = json.dumps(_hashes(directory), indent=1, sort_keys=True)
            draft = directory / f"{MANIFEST}.tmp"
            draft.write_text(text)
            os.replace(draft, directory / MANIFEST)
            self._rotate()

    def _rotate(self) -> None:
        steps = self._steps()
        newest = steps[: self.keep]
        saved = [_read_progress(self.directory / str(step)) for step in newest]
        kept = {*newest, *(each.leader.step for each in saved if each and each.leader)}
        for step in set(steps) - kept:
            # The manifest first: half a step, if the process ends in here, must not have one.
            (self.directory / str(step) / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(self.directory / str(step))

    def _wait(self) -> None:
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()


_UNSEALED = "has no manifest (its save was interrupted)"


def _fault(directory: Path) -> str | None:
    """What is wrong with a step, or None if every file is as it was saved."""
    if not directory.exists():
        return "is missing"
    try:
        expected = json.loads((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        return _UNSEALED
    except ValueError:
        return "is damaged (its manifest cannot be read)"
    if PROGRESS not in expected:
        return f"is damaged (its manifest names no {PROGRESS})"
    hashes = _hashes(directory)
    for name, digest in expected.items():
        if name not in hashes:
            return f"is damaged ({name} is missing)"
        if hashes[name] != digest:
            return f"is damaged ({name} differs from what was saved)"
    return None


def _read_progress(directory: Path) -> Progress | None:
    """A step's progress; None where it cannot be read, as in a step that is damaged."""
    try:
        fields = json.loads((directory / PROGRESS).read_bytes())
        best = None if fields["best"] is None else Best(**fields["best"])
        leader = None if fields["leader"] is None else Leader(**fields["leader"])
        return Progress(fields["step"], best, leader)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below, manifest aside, by relative path."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    files = [path for path in files if path.parent != directory or MANIFEST not in path.name]
    # hashlib lets go of the interpreter lock, so that several large files hash at once.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        digests = pool.map(_sha256, files)
    return {
        path.relative_to(directory).as_posix(): digest
        for path, digest in zip(files, digests, strict=True)
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
