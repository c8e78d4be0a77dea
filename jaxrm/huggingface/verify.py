"""What two readings of one model differ by: ours, ours of other files, or torch's.

Texts are random token ids, so that no tokenizer is involved, and short: what is compared is what
the weights compute, not what only longer texts show (a window, frequencies that go by length).

A tokenizer is read by itself: its file by the tokenizers library, which is what the file is for,
and its directory by AutoTokenizer, as the programs of others read it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from jaxrm.data.comparison import Message
from jaxrm.data.packing import Branch, TokenTree
from jaxrm.data.tokenizer import FILE, ChatTokenizer
from jaxrm.errors import ModelFileError
from jaxrm.models.config import ModelConfig

Values = Mapping[str, np.ndarray]
"""By name, float [texts, ...]: `rewards` [texts, outputs] and `logps` [texts], as a model has, and
with a gate over the outputs `gated` [texts]."""

Tokens = list[tuple[list[int], list[int]]]
"""Of each text its ids, bare and with what belongs around it: BOS, EOS, or nothing."""

EXCHANGE = (
    Message("user", "In 2024,  is it 1234567?\n"),
    Message("assistant", " It's not.\n\nNo."),
)
"""A conversation to render."""


def texts(config: ModelConfig, count: int = 8, longest: int = 96, seed: int = 0) -> list[TokenTree]:
    """Random texts, the shortest first, each a prompt and one response, without padding tokens.

    Args:
      longest: tokens of the last one; the first has 8.
    """
    rng = np.random.default_rng(seed)
    usable = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])

    def ids(count: int) -> np.ndarray:
        return rng.choice(usable, count).astype(np.int32)

    trees = []
    for length in np.linspace(8, longest, count).astype(int):
        response = length - length // 2
        trees.append(TokenTree(ids(length // 2), (Branch(ids(response), np.ones(response, bool)),)))
    return trees


def has_torch() -> bool:
    """Whether torch is there to compare with."""
    return importlib.util.find_spec("torch") is not None


def torchs(directory: str | Path, trees: Sequence[TokenTree]) -> Values:
    """What Hugging Face's torch classes say of the texts, in float32, one text at a time.

    Rewards come from a classifier's linear head, log-probs from a language model's: a directory is
    one or the other. No class of transformers reads the head of GRM's layout: log-probs only.

    Args:
      trees: the shortest first, because torch keeps dynamic frequencies of longer texts.

    Raises:
      ModelFileError: the classes cannot read the directory.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(directory)
        is_classifier = any("SequenceClassification" in name for name in config.architectures or [])
        family = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
        with _quiet():
            # Of torch's implementations of attention only the eager one knows soft caps.
            options = {"dtype": torch.float32, "attn_implementation": "eager"}
            model = family.from_pretrained(directory, **options).eval()
    except Exception as error:  # each class and library below raises its own kinds
        raise ModelFileError(f"{directory}: transformers cannot read it: {error}") from error
    values = []
    for tree in trees:
        ids = torch.tensor(np.concatenate([tree.prompt, tree.branches[0].tokens]))[None].long()
        with torch.inference_mode():
            logits = model(ids).logits
        if is_classifier:
            values.append(logits[0].numpy())
        else:
            start = len(tree.prompt)
            predicted = logits[0, start - 1 : -1].log_softmax(-1)
            values.append(predicted.gather(1, ids[0, start:, None]).sum().numpy())
    return {"rewards" if is_classifier else "logps": np.stack(values)}


def differences(left: Values, right: Values) -> dict[str, float]:
    """The largest difference in what both have, as a share of the largest value of `right`.

    Infinite where it is no number, or shapes differ.
    """
    return {name: _difference(left[name], right[name]) for name in left if name in right}


def _difference(left: np.ndarray, right: np.ndarray) -> float:
    if left.shape != right.shape or not (np.isfinite(left) & np.isfinite(right)).all():
        return math.inf
    return float(np.abs(left - right).max() / max(np.abs(right).max(), np.finfo(np.float32).tiny))


def chats(tokenizer: ChatTokenizer) -> list[str]:
    """A conversation as the chat template has it, whole and opened; nothing without a template."""
    if not tokenizer.hf.chat_template:
        return []
    opened = tokenizer.render(EXCHANGE[:1], opened=True)
    return [tokenizer.render(EXCHANGE, opened=False), opened]


def by_transformers(directory: Path, day: date) -> ChatTokenizer:
    """What AutoTokenizer makes of a directory, with its template on a day.

    Raises ModelFileError where it cannot read it.
    """
    try:
        hf = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # each class and library below raises its own kinds
        problem = f"AutoTokenizer cannot read its tokenizer: {error}"
        raise ModelFileError(f"{directory}: {problem}") from error
    return ChatTokenizer(hf, str(directory), day)


def tokens(tokenizer: ChatTokenizer, texts: Sequence[str]) -> Tokens:
    """What a tokenizer of transformers makes of texts."""
    bare, whole = (
        tokenizer.hf(list(texts), add_special_tokens=special)["input_ids"]
        for special in (False, True)
    )
    return list(zip(bare, whole, strict=True))


def tokens_of_file(directory: Path, texts: Sequence[str]) -> Tokens:
    """What the tokenizers library makes of texts with a directory's `tokenizer.json`."""
    return _tokens(_file(directory), texts)


def tokens_of_source(source: Path, out: Path, texts: Sequence[str]) -> Tokens:
    """What it makes of texts with the `tokenizer.json` that another directory's was made from.

    Beside the file count what `tokenizer_config.json` says of the white space around its tokens,
    and the tokens that `out` has besides: added by what lies beside the file, or on purpose.
    """
    tokenizer, config = _file(source), source / "tokenizer_config.json"
    said = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    records = (said.get("added_tokens_decoder") or {}).values()
    changed = [AddedToken(**record) for record in records if record["content"] in added]
    written = [token for _, token in sorted(_file(out).get_added_tokens_decoder().items())]
    tokenizer.add_tokens([*changed, *(token for token in written if token.content not in added)])
    return _tokens(tokenizer, texts)


def _file(directory: Path) -> Tokenizer:
    """A tokenizer by its file alone; of whole texts, as they are."""
    tokenizer = Tokenizer.from_file(str(directory / FILE))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    bare, whole = (
        [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=special)]
        for special in (False, True)
    )
    return list(zip(bare, whole, strict=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its report of tensors that a class does not take."""
    from transformers.utils import logging

    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()
