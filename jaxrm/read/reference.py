"""Log-probabilities under a frozen reference model, computed once and kept on disk.

DPO and its kin compare a policy with a reference that never changes, so its log-probs are numbers
of the data set: one scoring pass makes them, and training needs no second model in memory. They are
attached as a column with `store.with_columns(trees, {"reference_logps": logps})`; a batch carries
them where all trees have them and its shape was fitted to those, or lists them among its columns.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxrm import files
from jaxrm.data.packing import TokenTree
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.read.reading import read

log = logging.getLogger(__name__)


def reference_logps(
    model: RewardModel,
    trees: Sequence[TokenTree],
    *,
    cache: Path,
    model_key: str,
    mesh: Mesh,
    rows: int,
    row_length: int,
    progress: str = "",
) -> list[np.ndarray]:
    """The log-prob of every response under `model`, summed over its target tokens.

    What was computed before is read from `cache`, and `model` does not run. A file there belongs to
    the tokens and targets of all trees in order, to `model_key`, and to what else the numbers
    depend on: dtypes, the precision of matrix products, the platform. Packing (`rows`,
    `row_length`) changes them by rounding alone. A file that is damaged is logged and made again.

    Args:
      trees: tokenised comparisons, any K; they are gone through in order.
      cache: a directory, which may be shared by data sets and models. In a run of several
        processes the first one reads and writes it, and the others get the values from there.
      model_key: tells the weights from all others', as `hub.fingerprint` does for a directory.
      mesh: the mesh that the model lies on.
      rows, row_length, progress: as for `reading.read`.

    Returns:
      Float32 [K] for each tree, in the order of its responses.

    Raises:
      FloatingPointError: a log-prob is not finite; nothing is kept then.
    """
    trees_key, counts = _hash_trees(trees)
    parts = {
        "trees": trees_key,
        "comparisons": len(counts),
        "responses": int(counts.sum()),
        "model": model_key,
        "weights_dtype": str(model.embedding[...].dtype),
        "compute_dtype": model.compute.dtype,
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
        "platform": mesh.devices.flat[0].platform,
    }
    path = cache / f"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()}.npz"
    logps = _load_on_first(path, counts)
    if logps is None:
        options = {"mesh": mesh, "rows": rows, "row_length": row_length, "progress": progress}
        values = read(model, trees, {"logps": heads.response_logps}, ask="all", **options)
        logps = np.concatenate(values["logps"])
        if not np.isfinite(logps).all():
            first = int(np.flatnonzero(~np.isfinite(logps))[0])
            tree = int(np.searchsorted(np.cumsum(counts), first, side="right"))
            raise FloatingPointError(
                f"the reference's log-prob of a response of comparison {tree} is {logps[first]}: "
                "look for weights that are not finite, or compute in float32"
            )
        if jax.process_index() == 0:
            _store(path, parts, logps, counts)
    return np.split(logps, np.cumsum(counts)[:-1])


def _hash_trees(trees: Sequence[TokenTree]) -> tuple[str, np.ndarray]:
    """(SHA-256 of all tokens and targets in order, int64 [trees]: responses of each)."""
    content, counts = hashlib.sha256(), []
    for tree in trees:
        lengths = [len(tree.prompt), *(len(branch.tokens) for branch in tree.branches)]
        # Lengths first, and how many, so that no two lists of trees are the same bytes.
        content.update(np.array([len(lengths), *lengths], "<i8").tobytes())
        content.update(np.asarray(tree.prompt, "<i4").tobytes())
        for branch in tree.branches:
            content.update(np.asarray(branch.tokens, "<i4").tobytes())
            content.update(np.asarray(branch.targets, np.bool_).tobytes())
        counts.append(len(tree.branches))
    return content.hexdigest(), np.array(counts, np.int64)


def _load_on_first(path: Path, counts: np.ndarray) -> np.ndarray | None:
    """What the first process finds at `path`, in every process."""
    logps = _load(path, counts) if jax.process_index() == 0 else None
    if jax.process_count() == 1:
        return logps
    if not multihost_utils.broadcast_one_to_all(np.array(logps is not None)):
        return None
    nothing = np.zeros(counts.sum(), np.float32)
    return multihost_utils.broadcast_one_to_all(nothing if logps is None else logps)


def _store(path: Path, parts: dict[str, Any], logps: np.ndarray, counts: np.ndarray) -> None:
    """Writes the log-probs, then beside them a JSON of what they belong to and their hash."""
    content = io.BytesIO()
    np.savez(content, logps=logps, counts=counts)
    with files.replacing(path) as draft:
        draft.write_bytes(content.getvalue())
    card = parts | {"sha256": hashlib.sha256(content.getvalue()).hexdigest()}
    with files.replacing(path.with_suffix(".json")) as draft:
        draft.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _load(path: Path, counts: np.ndarray) -> np.ndarray | None:
    """Float32 [responses] as they were stored; None where they were not, or are damaged."""
    card = path.with_suffix(".json")
    if not (path.exists() and card.exists()):
        return None
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != json.loads(card.read_bytes())["sha256"]:
            raise ValueError("its contents are not those that were written")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            logps, stored = arrays["logps"], arrays["counts"]
        if not np.array_equal(stored, counts) or logps.shape != (counts.sum(),):
            raise ValueError("it holds other comparisons")
        if logps.dtype != np.float32 or not np.isfinite(logps).all():
            raise ValueError("it holds what is no log-prob")
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s): computed again", path, error)
        return None
    return logps
