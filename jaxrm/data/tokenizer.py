"""The tokenizer and chat template of a model's directory.

What `transformers` makes of a directory depends on its version and on the model type on record; the
ids that a model was trained on depend on neither.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jaxrm.data.comparison import Comparison, Conversation, Message
from jaxrm.errors import TokenizerError

log = logging.getLogger(__name__)

VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class ChatTokenizer:
    """A Hugging Face fast tokenizer with its chat template.

    Attributes:
        hf: the tokenizer itself.
        source: where it came from, for error messages.
        written: kinds of parts of messages that its template was seen to write
            (`jaxrm.data.template`).
    """

    def __init__(self, hf: PreTrainedTokenizerFast, source: str = "tokenizer"):
        if not hf.is_fast:
            raise TokenizerError(f"{source}: a fast tokenizer is needed; save a tokenizer.json")
        self.hf, self.source = hf, source
        self.written: set[str] = set()
        self._said: set[str] = set()

    def say_once(self, message: str, *where: object) -> None:
        """Logs a warning whose like has not been logged for this tokenizer."""
        if message not in self._said:
            self._said.add(message)
            log.warning(message, *where)

    @functools.cached_property
    def special_ids(self) -> np.ndarray:
        """Int [n]: ids that the tokenizer declares special, end-of-turn among them."""
        declared = (i for i, token in self.hf.added_tokens_decoder.items() if token.special)
        return np.array(sorted({*self.hf.all_special_ids, *declared}), np.int64)

    @functools.cached_property
    def special_texts(self) -> tuple[str, ...]:
        """How the special tokens are written."""
        return tuple(filter(None, self.hf.convert_ids_to_tokens(self.special_ids.tolist())))

    def is_rendered(self, text: str) -> bool:
        """Whether text begins as the template would write a conversation: with a special token, or
        with what stands before the first user's words."""
        return text.lstrip().startswith((*self.special_texts, *self._openings))

    @functools.cached_property
    def _openings(self) -> tuple[str, ...]:
        words = "Hello."
        opening = self.render((Message("user", words),), opened=True).partition(words)[0]
        for token in self.special_texts:
            opening = opening.removeprefix(token)
        return tuple(filter(None, (opening.strip(),)))

    @functools.cached_property
    def folds_system(self) -> bool:
        """Whether the template refuses system messages or leaves them out, so that the first user
        turn takes them.

        Raises TokenizerError where there is no template, or it fails on the plainest exchange.
        """
        if not self.hf.chat_template:
            raise TokenizerError(
                f"{self.source}: the tokenizer has no chat template: add a chat_template.jinja to "
                "the directory or name a template file"
            )
        user, assistant = Message("user", "Hello."), Message("assistant", "Hi.")
        try:
            self._render((user, assistant), opened=False)
        except Exception as error:  # a template may raise what it likes
            raise TokenizerError(f"{self.source}: the chat template fails: {error}") from error
        systems = (Message("system", "Be brief."), Message("system", "Be kind."))
        try:
            one, other = (self._render((system, user), opened=True) for system in systems)
        except Exception:
            return True
        return one == other

    def folded(self, comparisons: Iterable[Comparison]) -> int:
        """How many comparisons have their system message moved into the first user turn."""
        conversations = [c.prompt for c in comparisons if not isinstance(c.prompt, str)]
        with_system = sum(messages[0].role == "system" for messages in conversations)
        return with_system if with_system and self.folds_system else 0

    def render(
        self, messages: Conversation, *, opened: bool, tools: list[dict] | None = None
    ) -> str:
        """The template's text; `opened` begins the assistant's turn after it.

        What a template raises comes as it is: jinja2.TemplateError, or whatever an expression in it
        raises.
        """
        return self._render(_fold(messages) if self.folds_system else messages, opened, tools)

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the tokenizer's files, so that transformers 4 and 5 read the same from them."""
        self.hf.save_pretrained(directory)
        path = Path(directory, "tokenizer_config.json")
        config = json.loads(path.read_text("utf-8"))
        # The class is not to be guessed from the model's type.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        # transformers 4 fails on the list of that name, and 5 reads the older name too.
        if extra := config.pop("extra_special_tokens", None):
            config["additional_special_tokens"] = extra
        # Without it transformers 4 makes token_type_ids too, which decoders do not take.
        config["model_input_names"] = ["input_ids", "attention_mask"]
        for of_this_process in ("backend", "is_local", "local_files_only"):
            config.pop(of_this_process, None)
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _render(self, messages: Conversation, opened: bool, tools: list[dict] | None = None) -> str:
        turns = [message.row() for message in messages]
        options = {"tokenize": False, "add_generation_prompt": opened}
        return self.hf.apply_chat_template(turns, tools=tools, **options)


def load_tokenizer(directory: str | Path, chat_template: str | Path | None = None) -> ChatTokenizer:
    """The tokenizer in a model's directory, with the template in the file `chat_template` if given.

    Raises TokenizerError naming the directory where it holds no tokenizer that can be read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        problem = "is no directory: download the model, and name the directory that it is in"
        raise TokenizerError(f"{directory}: {problem}")
    if not any((directory / name).is_file() for name in VOCABULARY_FILES):
        problem = f"no tokenizer here: expected one of {', '.join(VOCABULARY_FILES)}"
        raise TokenizerError(f"{directory}: {problem}")
    # Without a class of its own on record, and for some model types (qwen2) even with one,
    # AutoTokenizer takes the class that belongs to the model type of config.json and rebuilds the
    # vocabulary in its manner, whatever tokenizer.json says.
    as_filed = (directory / "tokenizer.json").is_file() and _class_of(directory) in _NO_FAMILY_S
    family = PreTrainedTokenizerFast if as_filed else AutoTokenizer
    try:
        hf = family.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:  # each library below raises its own kinds for damaged files
        raise TokenizerError(f"{directory}: the tokenizer cannot be read: {error}") from error
    if chat_template is not None:
        try:
            hf.chat_template = Path(chat_template).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = f"the chat template cannot be read: {error}"
            raise TokenizerError(f"{chat_template}: {problem}") from error
    return ChatTokenizer(hf, str(directory))


def _fold(messages: Conversation) -> Conversation:
    """The opening system message as the beginning of the first user turn."""
    user = next((i for i, message in enumerate(messages) if message.role == "user"), None)
    if messages[0].role != "system" or user is None:
        return messages
    text = f"{messages[0].content}\n\n{messages[user].content}"
    joined = dataclasses.replace(messages[user], content=text)
    return (*messages[1:user], joined, *messages[user + 1 :])


# Classes that take tokenizer.json as it is.
_NO_FAMILY_S = (None, "PreTrainedTokenizerFast", "TokenizersBackend")


def _class_of(directory: Path) -> str | None:
    """The tokenizer's class, where `tokenizer_config.json` names one."""
    path = directory / "tokenizer_config.json"
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text("utf-8")).get("tokenizer_class") or None
    except (ValueError, AttributeError) as error:
        raise TokenizerError(f"{path}: not a JSON object: {error}") from error
