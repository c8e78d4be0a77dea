"""A model as an Orbax checkpoint: its parameters in our own layout, for JAX programs.

The directory holds `params`, which Orbax alone can restore, on any mesh; `config.json` in Hugging
Face's words; and `jaxrm.json`, the reward head and LoRA that the parameters belong to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import JaxrmError, ModelFileError
from jaxrm.files import replacing
from jaxrm.huggingface import families, gatefile
from jaxrm.huggingface.layout import check_replaceable, read_json
from jaxrm.models import transformer
from jaxrm.models.gate import Gated
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import Compute, RewardModel
from jaxrm.parallel import ShardingRules

KIND = "jaxrm.json"


def save(
    model: RewardModel,
    directory: str | Path,
    tokenizer: ChatTokenizer | None = None,
    gate: Gated | None = None,
) -> None:
    """Writes the model, and a tokenizer and a gate beside it, in the dtypes that the parameters
    have.

    The directory appears whole or not at all, in the place of such a directory that may be there.
    In a run of several processes each must call this, with a directory that all of them see.

    Raises:
      ModelFileError: there is something else at `directory`, it cannot be written, or a
        `config.json` cannot express the model.
    """
    directory = Path(directory).absolute()
    check_replaceable(directory, (KIND,), "Orbax model directory")
    head, lora = model.head_config, model.lora_config
    config = families.write(model.config, str(model.embedding[...].dtype))
    config.pop(gatefile.FIELD, None)
    belongs = {
        "head": None if head is None else dataclasses.asdict(head),
        "lora": None if lora is None else dataclasses.asdict(lora),
        "language_head": model.config.language_head,
    }
    params = transformer.split(model)[1]
    try:
        with _shared_draft(directory) as draft:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(draft / "params", params)
            if jax.process_index() == 0:
                if gate is not None:
                    config |= gatefile.write(draft, model, gate)
                for name, content in (("config.json", config), (KIND, belongs)):
                    (draft / name).write_text(json.dumps(content, indent=2) + "\n")
                if tokenizer is not None:
                    tokenizer.save_pretrained(draft)
    except (OSError, ValueError) as error:  # the latter is what Orbax raises for a full disk
        raise ModelFileError(f"{directory} cannot be written: {error}") from error


def is_one(directory: str | Path) -> bool:
    """Whether `save` wrote this directory."""
    return Path(directory, KIND).is_file()


def load(
    directory: str | Path,
    *,
    compute: Compute | None = None,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
    dtype: str | None = None,
) -> RewardModel:
    """Reads what `save` wrote, onto a mesh of any shape.

    Args:
      dtype: of the parameters, apart from the reward head and LoRA; by default as they were saved.

    Raises:
      ModelFileError: the directory is not whole, or its parts do not belong together.
    """
    directory = Path(directory).absolute()
    belongs, where = read_json(directory / KIND), directory / "config.json"
    config = families.read(read_json(where), str(where))
    try:
        config = dataclasses.replace(config, language_head=bool(belongs["language_head"]))
        head = None if belongs["head"] is None else HeadConfig(**belongs["head"])
        lora = belongs["lora"]
        if lora is not None:
            lora = LoraConfig(**lora | {"targets": tuple(lora["targets"])})
        declared = transformer.declare(config, head, lora)
    except (KeyError, TypeError, JaxrmError) as error:
        raise ModelFileError(f"{directory / KIND} makes no sense: {error!r}") from error
    with ocp.StandardCheckpointer() as checkpointer:
        stored = _stored(checkpointer, directory / "params")
        _check_shapes(declared, stored, directory)
        wanted = _wanted(declared, stored, dtype, mesh, rules or ShardingRules())
        try:
            params = checkpointer.restore(directory / "params", wanted)
        except Exception as error:  # a bare one is what Orbax raises for damaged data
            problem = str(error).split(". ")[0]
            raise ModelFileError(f"{directory / 'params'} is damaged: {problem}") from error
    return RewardModel(config, head, lora, compute=compute or Compute(), params=params)


@contextlib.contextmanager
def _shared_draft(directory: Path) -> Iterator[Path]:
    """A directory for all processes to write in, which becomes `directory` if nothing raises."""
    # Not one of `replacing`, whose name every process would draw anew.
    draft, first = directory.with_name(f".{directory.name}.draft"), jax.process_index() == 0
    if first:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    _meet(f"open {draft}")
    try:
        yield draft
        if first:
            with replacing(directory) as whole:
                draft.rename(whole)
    finally:
        if first:
            shutil.rmtree(draft, ignore_errors=True)
    _meet(f"saved {directory}")


def _meet(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _stored(checkpointer: ocp.StandardCheckpointer, params: Path) -> Tree:
    """Shape and dtype of everything in a checkpoint; raises ModelFileError where it is none."""
    # Through absl's logger Orbax warns twice of what the error here says.
    logging.getLogger("absl").setLevel(logging.ERROR)
    metadata = checkpointer.metadata(params).item_metadata
    if metadata is None:
        raise ModelFileError(f"{params} is missing or no whole Orbax checkpoint")
    return metadata.tree


def _check_shapes(declared: Tree, stored: Tree, directory: Path) -> None:
    """Raises ModelFileError unless the checkpoint holds exactly what is declared.

    Orbax itself finds a difference half way, which it says in thousands of lines.
    """
    ours, theirs = (
        {path: tuple(leaf.shape) for path, leaf in traverse_util.flatten_dict(t, sep="/").items()}
        for t in (declared, stored)
    )
    differing = sorted(
        f"{path} ({theirs.get(path, 'missing')} for {ours.get(path, 'nothing')})"
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
    )
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise ModelFileError(
            f"{directory / 'params'} is not what config.json and {KIND} beside it say: "
            f"{', '.join(differing[:3])}{more}"
        )


def _wanted(
    declared: Tree, stored: Tree, dtype: str | None, mesh: Mesh | None, rules: ShardingRules
) -> Tree:
    """Every parameter's shape, dtype and sharding."""
    one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = transformer.placements(declared, mesh, rules)
    if placed is None:
        placed = jax.tree.map(lambda parameter: one_device, declared)

    def want(path: tuple[Any, ...], leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        of_trunk = path[0].key not in ("reward_head", "lora")
        kept = dtype if dtype is not None and of_trunk else leaf.dtype
        return jax.ShapeDtypeStruct(leaf.shape, kept, sharding=sharding)

    return jax.tree_util.tree_map_with_path(want, stored, placed)
