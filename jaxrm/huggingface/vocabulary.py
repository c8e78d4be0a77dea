"""A tokenizer and an embedding that fit each other, and a padding token of its own."""

from __future__ import annotations

import copy
import dataclasses
import logging
import shlex
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float

from jaxrm.data.comparison import Message
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.errors import TokenizerError, require
from jaxrm.models.config import ModelConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel, split

log = logging.getLogger(__name__)

# What vocabularies call a token that is there for padding, whatever their tokenizer then says.
_PADDING = (
    "<pad>",  # Gemma, Mistral NeMo
    "[PAD]",  # GRM adds it to Llama
    "<|pad|>",  # fine-tunings of Mistral add it
    "<|finetune_right_pad_id|>",  # Llama 3.1
    "<|endoftext|>",  # Qwen, whose chats end with another token
)


def check(config: ModelConfig, tokenizer: ChatTokenizer, where: str) -> None:
    """Raises TokenizerError where the tokenizer has tokens that the embedding has no row for.

    Rows without a token are fine: some families round their number up.

    Args:
      where: the model's directory, for the message.
    """
    _refuse(_beyond(tokenizer.hf.get_vocab(), config.vocab_size), config.vocab_size, where)


def grow(
    model: RewardModel, tokenizer: ChatTokenizer, names: Sequence[str]
) -> tuple[RewardModel, ChatTokenizer]:
    """A model and a tokenizer in which every token of `names` has an id and an embedding row.

    Names that the tokenizer has keep their ids; the others become special tokens, and take rows
    that no token has where there are such. The embedding and an untied language-model head reach up
    to the largest id afterwards and are never cut. Rows that are there stay as they are; new ones
    are the mean of the rows that belong to tokens, in each of the two arrays. What was given is not
    changed.

    Raises:
      OptionError: a name is empty.
      TokenizerError: the embedding lacks rows for tokens that `names` does not name, or a new token
        would get the id of another one.
    """
    require(all(names), "a token's name", "at least one character long", "")
    hf = copy.deepcopy(tokenizer.hf)
    old_vocab, rows = hf.get_vocab(), model.config.vocab_size
    others = {name: i for name, i in _beyond(old_vocab, rows).items() if name not in names}
    _refuse(others, rows, tokenizer.source)
    lacking = [name for name in names if name not in old_vocab]
    hf.add_tokens(lacking, special_tokens=True)
    vocab = hf.get_vocab()
    taken = set(old_vocab.values())
    # The tokenizers library numbers the first added token by how many others there are.
    for name in lacking:
        if vocab[name] in taken:
            raise TokenizerError(
                f"{tokenizer.source}: {name} would get the id {vocab[name]}, which another token "
                "has, because the ids of tokenizer.json have gaps: number them without"
            )
    enough = 1 + max(vocab.values())
    if enough > rows:
        of_tokens = np.isin(np.arange(rows), list(taken))
        params = split(model)[1]
        for name in params.keys() & {"embedding", "lm_head"}:
            params[name] = _extended(params[name], of_tokens, enough)
        model = _changed(model, params, vocab_size=enough)
        log.info("%s: the embedding had %d rows and has %d now", tokenizer.source, rows, enough)
    return model, ChatTokenizer(hf, tokenizer.source)


def padded(model: RewardModel, tokenizer: ChatTokenizer) -> tuple[RewardModel, ChatTokenizer]:
    """A model and a tokenizer that agree on a padding token which ends no sequence and no turn.

    Hugging Face's classifiers read a reward at the last token that is not padding: where padding
    is what a text ends with, that is another token than the last. The token is the tokenizer's own
    where it serves, else one that the vocabulary has for the purpose, else a new one. What was
    given is not changed; where nothing needs to change, it is returned.

    Raises:
      TokenizerError: the token needs an embedding row, and `grow` refuses to add it.
    """
    vocab, ends = tokenizer.hf.get_vocab(), model.config.eos_token_id
    unfit = {None, tokenizer.hf.eos_token_id, *(ends if isinstance(ends, tuple) else (ends,))}
    unfit |= _rendered(tokenizer)
    # By name: a padding token that the vocabulary lacks has the id of the unknown token.
    own = tokenizer.hf.pad_token
    fit = (name for name in (own, *_PADDING) if vocab.get(name) not in unfit)
    name = next(fit, None) or next(name for name in _PADDING if name not in vocab)

    rows = model.config.vocab_size
    if vocab.get(name, rows) >= rows:
        model, tokenizer = grow(model, tokenizer, [name])
    if own != name:
        hf = copy.deepcopy(tokenizer.hf)
        hf.add_special_tokens({"pad_token": name})
        tokenizer = ChatTokenizer(hf, tokenizer.source)
        say = log.info if name in vocab else log.warning
        kind = "a token that it had" if name in vocab else "a new token"
        words = "%s: the padding token was %s, and is %s (%d) now, %s which ends no sequence"
        say(words, tokenizer.source, own, name, hf.pad_token_id, kind)
    if model.config.pad_token_id != tokenizer.hf.pad_token_id:
        model = _changed(model, split(model)[1], pad_token_id=tokenizer.hf.pad_token_id)
    return model, tokenizer


def _rendered(tokenizer: ChatTokenizer) -> set[int]:
    """The ids of a short conversation, end-of-turn among them; none without a chat template."""
    if not tokenizer.hf.chat_template:
        return set()
    text = tokenizer.render((Message("user", "Hello."), Message("assistant", "Hi.")), opened=False)
    return set(tokenizer.hf(text, add_special_tokens=False)["input_ids"])


def _beyond(vocab: Mapping[str, int], rows: int) -> dict[str, int]:
    """The tokens that an embedding of so many rows has none for, by name, in the order of ids."""
    # By the largest id and not by their count: ids may have gaps.
    return dict(sorted(((n, i) for n, i in vocab.items() if i >= rows), key=lambda item: item[1]))


def _refuse(beyond: Mapping[str, int], rows: int, where: str) -> None:
    """Raises TokenizerError unless there is no token beyond the embedding's rows."""
    if beyond:
        first, more = list(beyond)[:3], len(beyond) - 3
        shown = ", ".join(f"{name} ({beyond[name]})" for name in first)
        asked = " ".join(shlex.quote(name) for name in first)
        raise TokenizerError(
            f"{where}: the embedding has {rows} rows, and the tokenizer has tokens beyond them: "
            f"{shown}{f' and {more} more' if more > 0 else ''}. If it is the tokenizer of this "
            "model, give every one of them a row with `python -m jaxrm.convert` and "
            f"`--add-tokens {asked}{' ...' if more > 0 else ''}`"
        )


def _extended(
    array: Float[Array, "old d"], of_tokens: Bool[np.ndarray, " old"], rows: int
) -> Float[Array, "rows d"]:
    """The array with more rows, each the mean of those that belong to tokens."""

    def extend(array: jax.Array, of_tokens: jax.Array) -> jax.Array:
        # At the mean a new token is never the likeliest, its logit being the mean of the others',
        # and no norm meets a vector of unusual length. It is also what the rows are drawn about
        # in transformers' resize_token_embeddings.
        mean = jnp.mean(array, axis=0, where=of_tokens[:, None])
        return jnp.concatenate([array, jnp.tile(mean, (rows - len(array), 1))])

    return jax.jit(extend, out_shardings=_placement(array, rows))(array, of_tokens)


def _placement(array: jax.Array, rows: int) -> NamedSharding | None:
    """Where the array lies, with its first axis whole if so many rows do not divide as it does."""
    sharding = array.sharding
    if not isinstance(sharding, NamedSharding):
        return None
    parts = array.shape[0] // sharding.shard_shape(array.shape)[0]
    if rows % parts == 0:
        return sharding
    log.warning("an embedding of %d rows does not divide over %d devices: replicated", rows, parts)
    return NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec[1:]))


def _changed(model: RewardModel, params: Tree, **fields: int) -> RewardModel:
    """The model with these parameters, and with these fields of its configuration."""
    return RewardModel(
        dataclasses.replace(model.config, **fields),
        model.head_config,
        model.lora_config,
        compute=model.compute,
        params=params,
    )
