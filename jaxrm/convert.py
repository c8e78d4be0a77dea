"""Model directories converted, and every conversion checked.

    python -m jaxrm.convert IN OUT                      # Hugging Face's layout, both dialects
    python -m jaxrm.convert IN OUT --adapter ADAPTER    # a base and its LoRA, merged
    python -m jaxrm.convert IN OUT --to language-model  # the language-model head, a ...ForCausalLM
    python -m jaxrm.convert IN OUT --to orbax           # for JAX programs; IN may be such a one too
    python -m jaxrm.convert IN                          # nothing written: only checked

IN is a reward model, a language model, or a mixture of several, each of which is converted: a
directory, or a name on the Hub (owner/name or owner/name@revision), as ADAPTER is.

What was written is read again, and its rewards and log-probs on random token ids are compared with
those of the model in memory (LoRA merged, in the dtype asked for); where torch is installed, with
those of Hugging Face's torch classes as well. What the tokenizers library makes of texts with OUT's
tokenizer.json, and AutoTokenizer with OUT, is compared with what that library makes of them with
IN's. When something differs, OUT stays where it is and the exit status is 1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import transformers
import tyro

from jaxrm import cli, parallel
from jaxrm.data.packing import TokenTree
from jaxrm.data.tokenizer import FILE, VOCABULARY_FILES, ChatTokenizer, load_tokenizer, telling
from jaxrm.errors import ModelFileError, OptionError, require
from jaxrm.huggingface import gatefile, hub, layout, mixture, names, verify, vocabulary, weights
from jaxrm.huggingface import orbax as orbax_directory
from jaxrm.huggingface.layout import Tensors
from jaxrm.huggingface.mixture import Member
from jaxrm.huggingface.verify import Values
from jaxrm.models import heads
from jaxrm.models.gate import Gated, prompt_states
from jaxrm.models.transformer import RewardModel, split
from jaxrm.read.reading import read


@dataclasses.dataclass(frozen=True)
class Config:
    """Convert a model directory, or check one."""

    model: tyro.conf.Positional[Path]
    """A model in Hugging Face's layout, as a directory or by its name on the Hub, or a directory
    that --to orbax made."""
    out: tyro.conf.Positional[Path | None] = None
    """Where to write; without it the model is only checked, by torch's reading of it."""
    adapter: Path | None = None
    """A LoRA adapter in PEFT's or GRM's layout to merge, likewise a directory or a name on the Hub;
    it may bring the reward head."""
    to: Literal["files", "language-model", "orbax"] = "files"
    """Hugging Face's layout with the head that the model has or without it, or Orbax's."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """What the trunk is stored in; as in the files without it."""
    add_tokens: tuple[str, ...] = ()
    """Special tokens that are to have an id and an embedding row, by name."""
    chat_template: Path | None = None
    """A file with a chat template to keep with the tokenizer."""
    shard_gb: float = 5.0
    """Gigabytes that a file of several may hold."""
    check: bool = True
    """Compare what was written with the model; it takes a second copy of it, torch's in float32."""
    tolerance: float = 1e-3
    """What counts as a failed check, as a share of the largest reward or log-prob."""


Reader = Callable[[Path, Sequence[TokenTree]], Values]
"""(directory, texts) -> what some program makes of the texts with the files alone."""


def main(config: Config) -> None:
    """Reads, writes, checks, and says what it found."""
    _check_options(config)
    adapter = config.adapter and names.local(config.adapter).directory
    model = names.local(config.model).directory
    config = dataclasses.replace(config, model=model, adapter=adapter)
    _check_kind(config)
    tokenizer = _tokenizer(config)
    members = mixture.read(config.model)
    if members is not None:
        _convert_mixture(config, members, tokenizer)
        return
    model, tokenizer = _prepared(config, config.model, tokenizer)
    gate = gatefile.read(config.model, model)
    if config.out is None:
        check(model, config.model, {"torch": verify.torchs}, config.tolerance)
        return
    if tokenizer is not None:
        # As saving would, but before log-probs are compared: they change with a new row.
        model, tokenizer = vocabulary.padded(model, tokenizer)
    if config.to == "orbax":
        orbax_directory.save(model, config.out, tokenizer, gate)
    else:
        model = _of_files(model, config)
        gate = None if model.reward_head is None else gate
        scale = None if config.adapter else hub.read_scale(model.config)
        parts = {"shard_bytes": _shard_bytes(config), "scale": scale, "gate": gate}
        hub.save(model, config.out, tokenizer, **parts)
    print(f"{config.out}: written")
    if config.check and tokenizer is not None:
        check_tokenizer(tokenizer, config.model, config.out)
    if config.check:
        check(model, config.out, _readers(config.out), config.tolerance, gate)


def _convert_mixture(
    config: Config, members: Sequence[Member], tokenizer: ChatTokenizer | None
) -> None:
    """Converts and checks each member by itself; what it counts stays."""

    def converted(member: Member) -> RewardModel:
        model, _ = _prepared(config, config.model / member.directory, tokenizer)
        return model.language_model() if member.reads == "logps" else _of_files(model, config)

    readers = {"torch": verify.torchs}
    if config.out is not None:
        if config.add_tokens:
            first = config.model / members[0].directory
            tokenizer = _prepared(config, first, tokenizer)[1]
        parts = [(functools.partial(converted, member), member) for member in members]
        options = {"shard_bytes": _shard_bytes(config), "scale": mixture.read_scale(config.model)}
        mixture.save(config.out, parts, tokenizer, **options)
        print(f"{config.out}: written")
        if config.check and tokenizer is not None:
            check_tokenizer(tokenizer, config.model, config.out)
        readers = _readers(config.out)
    out = config.out or config.model
    if config.check and mixture.read(out) != members:
        raise ModelFileError(f"{out}: read again, its members are other ones")
    for member in members if config.check else ():
        check(converted(member), out / member.directory, readers, config.tolerance)


def _prepared(
    config: Config, directory: Path, tokenizer: ChatTokenizer | None
) -> tuple[RewardModel, ChatTokenizer | None]:
    """A model as the options have it, and a tokenizer with the tokens that they add."""
    model = load(directory, config.adapter, config.dtype)
    if config.add_tokens:
        return vocabulary.grow(model, tokenizer, config.add_tokens)
    if tokenizer is not None:
        vocabulary.check(model.config, tokenizer, str(directory))
    return model, tokenizer


def load(directory: Path, adapter: Path | None = None, dtype: str | None = None) -> RewardModel:
    """The model in a directory of any kind, with the reward head that it has, if any, LoRA merged.

    Args:
      adapter: for a directory in Hugging Face's layout, as `hub.load` takes it.
      dtype: of the trunk's parameters; without it the files' own, or float32 where they have
        several.

    Raises:
      ModelFileError: as `hub.load` and `orbax_directory.load` do.
    """
    if orbax_directory.is_one(directory):
        return orbax_directory.load(directory, dtype=dtype).merged()
    hub.read_config(directory)
    tensors = weights.open_directory(directory)
    dtype = dtype or _dtype(tensors)
    if adapter is None and layout.stored_head(tensors) is None:
        return hub.load_language_model(directory, dtype=dtype)
    return hub.load(directory, None, adapter=adapter, dtype=dtype).merged()


def values_of(model: RewardModel, trees: Sequence[TokenTree], gate: Gated | None = None) -> Values:
    """What the model says of the texts, by itself on one device or on the mesh that it lies on."""
    readings = {} if model.reward_head is None else {"rewards": heads.outputs}
    if gate is not None:
        readings["prompts"] = prompt_states
    if model.config.language_head:
        readings["logps"] = heads.response_logps
    sharding = model.embedding[...].sharding
    mesh = getattr(sharding, "mesh", None) or parallel.make_mesh(devices=jax.devices()[:1])
    # By default an accelerator rounds the factors of float32 products, which torch's CPU does not.
    with jax.default_matmul_precision("highest"):
        by_tree = read(model, trees, readings, mesh=mesh, rows=4, row_length=256, ask="all")
    values = {name: np.concatenate(each) for name, each in by_tree.items()}
    if gate is not None:
        values["gated"] = np.asarray(gate.rewards(values["rewards"], values.pop("prompts")))
    return values


def ours(directory: Path, trees: Sequence[TokenTree]) -> Values:
    """What jaxrm makes of the texts with the files in a directory."""
    model = load(directory)
    return values_of(model, trees, gatefile.read(directory, model))


def check(
    model: RewardModel,
    directory: Path,
    readers: Mapping[str, Reader],
    tolerance: float,
    gate: Gated | None = None,
) -> None:
    """Prints how far the readings of a directory are from what the model itself says.

    Raises:
      ModelFileError: by more than `tolerance`, `ours` misses a part of it, or there is nothing
        that both say.
    """
    trees = verify.texts(model.config)
    expected = values_of(model, trees, gate)
    apart: list[float] = []
    for program, reader in readers.items():
        values = reader(directory, trees)
        if reader is ours and values.keys() != expected.keys():
            raise ModelFileError(f"{directory}: read again, there are only {', '.join(values)}")
        for name, difference in verify.differences(values, expected).items():
            print(
                f"{directory}, read by {program}: {name} differ by {difference:.1e} of the largest"
            )
            apart.append(difference)
    if not apart:
        raise ModelFileError(
            f"{directory}: {' and '.join(readers)} read none of {', '.join(expected)}"
        )
    if max(apart) > tolerance:
        raise ModelFileError(
            f"{directory} is another model when it is read: {max(apart):.1e} of the largest value "
            f"is more than --tolerance {tolerance:.1e}"
        )


def check_tokenizer(tokenizer: ChatTokenizer, source: Path, out: Path) -> None:
    """Prints who makes the same tokens of the tokenizer in `out` as of the file it was made from.

    Texts are telling ones and a conversation as the chat template has it.

    Args:
      tokenizer: what was written.
      source: the directory that it came from. Where that has no tokenizer.json, the tokens are
        those of `tokenizer`.

    Raises:
      ModelFileError: someone makes other tokens of a text, or another text of the conversation.
    """
    chats = verify.chats(tokenizer)
    texts = [*telling(tokenizer.hf), *chats]
    if (source / FILE).is_file():
        expected = verify.tokens_of_source(source, out, texts)
    else:
        print(f"{source} has no {FILE}: compared with what transformers makes of its vocabulary")
        expected = verify.tokens(tokenizer, texts)
    theirs = verify.by_transformers(out, tokenizer.day)
    if verify.chats(theirs) != chats:
        raise ModelFileError(f"{out}: AutoTokenizer renders a conversation otherwise than {source}")
    readings = {
        "tokenizers": verify.tokens_of_file(out, texts),
        f"AutoTokenizer of transformers {transformers.__version__}": verify.tokens(theirs, texts),
    }
    for reader, tokens in readings.items():
        for text, made, wanted in zip(texts, tokens, expected, strict=True):
            if made != wanted:
                raise ModelFileError(
                    f"{out} has another tokenizer when it is read by {reader}: {text!r} is "
                    f"{made[1]}, and {wanted[1]} in {source}. Do not use it where it is read so"
                )
        print(f"{out}, read by {reader}: the same tokens of {len(texts)} texts")


def _check_options(config: Config) -> None:
    """Raises OptionError, or ModelFileError for the place to write, before anything is read."""
    require(0 < config.shard_gb < math.inf, "--shard-gb", "a number above 0", config.shard_gb)
    require(config.tolerance >= 0, "--tolerance", "at least 0", config.tolerance)
    if config.out is None:
        _check_alone(config)
        return
    out = config.out.resolve()
    for source in filter(None, (config.model, config.adapter)):
        path = source.resolve()
        if out.is_relative_to(path) or path.is_relative_to(out):
            raise OptionError(f"{config.out} must not be {source}, nor lie in it or around it")
    if config.to == "orbax":
        layout.check_replaceable(out, (orbax_directory.KIND,), "Orbax model directory")
    else:
        hub.check_place(out)


def _check_alone(config: Config) -> None:
    """Raises OptionError for options that need an output."""
    of_writing = [
        f"--{'no-' if field.name == 'check' else ''}{field.name.replace('_', '-')}"
        for field in dataclasses.fields(config)
        if field.name not in ("model", "tolerance") and getattr(config, field.name) != field.default
    ]
    if of_writing:
        raise OptionError(f"{', '.join(of_writing)}: only with an output directory, so name one")


def _check_kind(config: Config) -> None:
    """Raises OptionError for options that do not go with what kind of directory the model is."""
    if config.adapter is not None and orbax_directory.is_one(config.model):
        raise OptionError(f"--adapter needs a base in Hugging Face's layout, not {config.model}")
    if layout.is_mixture(config.model) and (config.adapter is not None or config.to != "files"):
        raise OptionError(f"{config.model} is a mixture: only --to files, and no --adapter")
    if config.out is None and "torch" not in _readers(config.model):
        raise OptionError(f"nothing to compare {config.model} with: name an output directory")


def _readers(directory: Path) -> dict[str, Reader]:
    """By name, who can read a directory; says why torch cannot."""
    if orbax_directory.is_one(directory):
        print("torch cannot read an Orbax checkpoint: not compared with it")
    elif not verify.has_torch():
        print("torch is not installed: not compared with it")
    else:
        return {"jaxrm": ours, "torch": verify.torchs}
    return {"jaxrm": ours}


def _tokenizer(config: Config) -> ChatTokenizer | None:
    """The directory's tokenizer; None where it has none and none is needed."""
    has_one = any((config.model / name).is_file() for name in VOCABULARY_FILES)
    if not has_one and not (config.add_tokens or config.chat_template):
        return None
    return load_tokenizer(config.model, config.chat_template)


def _shard_bytes(config: Config) -> int:
    return int(config.shard_gb * 1e9)


def _dtype(tensors: Tensors) -> str:
    """What holds every tensor of the trunk without loss."""
    heads = ("score.", "v_head.")
    dtypes = {str(tensor.dtype) for name, tensor in tensors.items() if not name.startswith(heads)}
    return dtypes.pop() if dtypes in ({"bfloat16"}, {"float16"}) else "float32"


def _of_files(model: RewardModel, config: Config) -> RewardModel:
    """The part of the model that the files asked for can hold."""
    if config.to == "language-model":
        if not model.config.language_head:
            raise ModelFileError(
                f"{config.model} has no language-model head: it is a sequence classifier, whose "
                "files leave lm_head.weight out; its ...ForCausalLM has one"
            )
        return model.language_model()
    head, params = model.head_config, split(model)[1]
    if head is None or head.kind != "linear" or "lm_head" not in params:
        return model
    print(f"{config.out}: a classifier has no lm_head.weight: --to language-model writes that one")
    del params["lm_head"]
    without = dataclasses.replace(model.config, language_head=False)
    return RewardModel(without, head, compute=model.compute, params=params)


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
