"""jaxrm: generalizable reward models in JAX.

import jaxrm

rm = jaxrm.load("DIR_OR_NAME")
rm.score([[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]])
rm.compare("Why?", ["Because.", "I do not know."])
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxrm.api import Judge, RewardModel
    from jaxrm.methods.verdicts import Ask

# Here, before any module can import transformers: it is used for tokenizers alone, which need no
# torch, and nobody who trains in JAX has to hear that torch is not there.
logging.getLogger("transformers").addFilter(
    lambda said: "PyTorch was not found" not in str(said.msg)
)


def load(
    name: str | Path,
    adapter: str | Path | None = None,
    dtype: str = "float32",
    *,
    chat_template: str | Path | None = None,
    judge: Ask | None = None,
) -> RewardModel | Judge:
    """A reward model, a mixture of several, or a judge, to score conversations with.

    Args:
      name: a directory in Hugging Face's layout with a tokenizer and a reward head (one linear
        layer, GRM's, or ArmoRM's outputs with their gate), or a mixture that jaxrm wrote; or the
        Hub's `owner/name`, downloaded once.
      adapter: a LoRA adapter beside it in PEFT's or GRM's layout, by directory or name; it may
        bring the reward head.
      dtype: what the trunk computes in, "float32" or "bfloat16"; rewards are float32 always.
      chat_template: a file with the chat template, for a tokenizer that brings none.
      judge: for a language model that says which of two answers is better. Nothing in its files
        tells it from others, so how it is to be asked is given here:
        `jaxrm.methods.verdicts.which_is_better`, or a function of its own.

    Returns:
      A `jaxrm.api.RewardModel`, or with `judge` a `jaxrm.api.Judge`. Both have
      `score(conversations)`, float32 [n], and `compare(prompt, responses)`, float32 [K].

    Raises:
      ModelFileError, TokenizerError: a file is missing, cannot be read exactly, or is of something
        else than what is asked for.
      OptionError: an unknown dtype, or an adapter beside a judge.
    """
    from jaxrm import api

    return api.load(name, adapter, dtype, chat_template=chat_template, judge=judge)
