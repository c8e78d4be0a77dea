"""Saving and restoring a run: Orbax, asynchronously, with a manifest of hashes for every step.

Orbax writes a step directory in the background and commits it; what it restores it does not check
(a flipped byte comes back as a weight). So once a step is committed, a manifest with the SHA-256 of
each of its files is written into it, and restoring verifies the manifest first. The manifest comes
last: a step that has none is a save that was interrupted, and counts as never made.
"""

from __future__ import annotations

import concurrent.futures
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

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one run: `directory/<step>/`, the newest `keep` of them.

    A context manager: leaving it waits for the save under way. Call `restore` before the first
    `save`, because it clears away what an interrupted run left behind. `keep` is 2 at least: Orbax
    deletes the oldest step before the newest has its manifest.
    """

    def __init__(self, directory: Path, keep: int = 3):
        if keep < 2:
            raise ValueError(f"keep must be at least 2, not {keep}")
        # Orbax logs some thirty lines for each save through absl's logger.
        logging.getLogger("absl").setLevel(logging.ERROR)
        self.directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
        )
        self._background = concurrent.futures.ThreadPoolExecutor(1, "seal")
        self._sealing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._wait()
        finally:
            self._background.shutdown()
            self._manager.close()

    def save(self, step: int, state: Any, position: int) -> None:
        """Save a pytree of arrays, and the loader's position, as step `step`.

        Returns once the arrays are copied to the host, so that donating them afterwards is safe;
        writing goes on behind. Waits for the save before it, and raises what went wrong there.
        """
        self._wait()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                loader=ocp.args.JsonSave({"position": position}),
            ),
            force=True,
        )
        self._sealing = self._background.submit(self._seal, step)

    def restore(self, abstract: Any) -> tuple[Any, int] | None:
        """The newest intact step as (state, loader position); None where no save ever finished.

        `abstract` is the state's tree with ShapeDtypeStructs as leaves. Arrays arrive with the
        shardings that it has, whichever they were saved with. Newer steps that are damaged or
        unfinished are logged and deleted, so that training can reach and save them again.

        Raises CheckpointError when steps were saved but all of them are damaged.
        """
        rejected: dict[int, str] = {}
        newest = None
        for step in self._steps():
            fault = _fault(self.directory / str(step))
            if fault is None:
                newest = step
                break
            log.warning("checkpoint %d %s: skipped", step, fault)
            rejected[step] = fault
        damaged = [f"step {step} {fault}" for step, fault in rejected.items() if fault != _UNSEALED]
        if newest is None and damaged:
            raise CheckpointError(
                f"no checkpoint in {self.directory} is intact: {'; '.join(damaged)}. Restore them "
                "from a copy, or delete the directory to train from the beginning"
            )
        # Every process has judged the same files before one of them deletes any.
        multihost_utils.sync_global_devices("checkpoints verified")
        if jax.process_index() == 0:
            for step in rejected:
                shutil.rmtree(self.directory / str(step))
        multihost_utils.sync_global_devices("checkpoints cleared")
        self._manager.reload()
        if newest is None:
            return None
        restored = self._manager.restore(
            newest,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), loader=ocp.args.JsonRestore()
            ),
        )
        return restored["state"], restored["loader"]["position"]

    def _steps(self) -> list[int]:
        """Every step with a directory of its own, committed or not, newest first."""
        names = (path.name for path in self.directory.iterdir() if path.is_dir())
        return sorted((int(name) for name in names if re.fullmatch(r"\d+", name)), reverse=True)

    def _seal(self, step: int) -> None:
        self._manager.wait_until_finished()
        if jax.process_index() == 0:
            directory = self.directory / str(step)
            text = json.dumps(_hashes(directory), indent=1, sort_keys=True)
            draft = directory / f"{MANIFEST}.tmp"
            draft.write_text(text)
            os.replace(draft, directory / MANIFEST)

    def _wait(self) -> None:
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()


_UNSEALED = "has no manifest (its save was interrupted)"


def _fault(directory: Path) -> str | None:
    """What is wrong with a step, or None if every file is as it was saved."""
    try:
        expected = json.loads((directory / MANIFEST).read_bytes())
    except FileNotFoundError:
        return _UNSEALED
    except ValueError:
        return "is damaged (its manifest cannot be read)"
    found = _hashes(directory)
    for name, digest in expected.items():
        if name not in found:
            return f"is damaged ({name} is missing)"
        if found[name] != digest:
            return f"is damaged ({name} differs from what was saved)"
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
