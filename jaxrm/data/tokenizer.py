"""The tokenizer and chat template of a model's directory.

What `transformers` makes of a directory depends on its version and on the model type on record; the
ids that a model was trained on depend on neither.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import string
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from jaxrm.data.comparison import Comparison, Conversation, Message
from jaxrm.errors import TokenizerError

log = logging.getLogger(__name__)

FILE = "tokenizer.json"
"""What the tokenizers library reads and writes a tokenizer as."""

VOCABULARY_FILES = (FILE, "tokenizer.model", "vocab.json", "vocab.txt")

TELLING = (
    "The cat sat on the mat.",
    " a  b   c ",
    "In 2024, 1234567 of 10.50",
    "one\n\n\ttwo \r\n  three\n",
    "It's, he said, DON'T; we'll",
    "na\u00efve nai\u0308ve \u2168 \ufb01 \uff46",  # composed and not, compatibility forms
    "\u65e5\u672c\u8a9e \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f \U0001f642\u200d",
    "def f(x):\n    return x != {}['k']  # ok",
)
"""Texts that normalisers and divisions into words treat differently."""

# After so many days the date is another in each of its parts: year, month, day, and day's name.
_ANOTHER_DAY = timedelta(days=400)


class ChatTokenizer:
    """A Hugging Face fast tokenizer with its chat template.

    Attributes:
        hf: the tokenizer itself.
        source: where it came from, for error messages.
        day: what its template calls today, for as long as it is used.
        written: kinds of parts of messages that its template was seen to write
            (`jaxrm.data.template`).
    """

    def __init__(
        self,
        hf: PreTrainedTokenizerFast,
        source: str = "tokenizer",
        day: date | None = None,
    ):
        if not hf.is_fast:
            raise TokenizerError(f"{source}: a fast tokenizer is needed; save a tokenizer.json")
        self.hf, self.source = hf, source
        self.day = day or date.today()
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
                "the directory or name a template file (--chat-template)"
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

    @property
    def dated(self) -> str:
        """The day (2026-11-30) where the template writes it into conversations, and "" elsewhere.

        Told by what becomes of a plain exchange and of one with a system message on another day:
        a template that asks for the date may never write it.
        """
        another = ChatTokenizer(self.hf, self.source, self.day + _ANOTHER_DAY)
        exchange = (Message("user", "Hello."), Message("assistant", "Hi."))
        for messages in (exchange, (Message("system", "Be brief."), *exchange)):
            try:
                if self._render(messages, False) != another._render(messages, False):
                    return self.day.isoformat()
            except Exception:  # no template, or one that fails: rendering is to say so
                continue
        return ""

    @functools.cached_property
    def opens_oddly(self) -> str:
        """What is odd about how the template opens a conversation, and "" where nothing is.

        That is white space before all else or in lines of its own after BOS, or no BOS where the
        tokenizer puts one before raw text. Told by a plain exchange.
        """
        exchange = (Message("user", "Hello."), Message("assistant", "Hi."))
        try:
            text = self._render(exchange, opened=False)
        except Exception:  # no template, or one that fails: rendering is to say so
            return ""
        bos = self.hf.bos_token
        lead = _blank(text)
        inner = _blank(text[len(lead) :].removeprefix(bos or ""))
        if lead:
            return f"writes {lead!r} before all else"
        if "\n" in inner:
            return f"writes {inner!r} between {bos} and the first turn"
        raw = self.hf("Hello.")["input_ids"]
        begins = self.hf(text, add_special_tokens=False)["input_ids"][:1]
        if bos is not None and raw[:1] == [self.hf.bos_token_id] != begins:
            return f"writes no {bos}, which the tokenizer puts before raw text"
        return ""

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
        # transformers 4 changes the file's division into words to what is said here, or to False.
        words = self.hf.backend_tokenizer.pre_tokenizer
        if (prefix := getattr(words, "add_prefix_space", None)) is not None:
            config["add_prefix_space"] = prefix
        for of_this_process in ("backend", "is_local", "local_files_only"):
            config.pop(of_this_process, None)
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def _render(self, messages: Conversation, opened: bool, tools: list[dict] | None = None) -> str:
        template = _on_day(self.hf.get_chat_template(tools=tools), self.day)
        options = {"tokenize": False, "add_generation_prompt": opened, "tools": tools}
        turns = [message.row() for message in messages]
        try:
            return self.hf.apply_chat_template(turns, chat_template=template, **options)
        except Exception:
            # Some templates join the arguments of a call to other text, so that they must be text.
            if not any(message.tool_calls for message in messages):
                raise
            try:
                turns = [_with_text(turn) for turn in turns]
                return self.hf.apply_chat_template(turns, chat_template=template, **options)
            except Exception:  # it refuses something else: the first error says what
                pass
            raise


def load_tokenizer(
    directory: str | Path,
    chat_template: str | Path | None = None,
    *,
    day: date | None = None,
) -> ChatTokenizer:
    """The tokenizer in a model's directory.

    Ids and offsets are those of `tokenizer.json` as the tokenizers library reads it, whatever class
    the directory names. For some classes and model types AutoTokenizer of transformers 5 takes the
    vocabulary alone from it, and normalises and divides text in a manner of its own, another one in
    each version: where it comes to other ids, a warning says so. Without that file the tokenizer is
    what transformers makes of the vocabulary, and a warning says that.

    BOS and EOS around raw text are those of the file's post-processor, as in transformers 5:
    `add_bos_token` and `add_eos_token` in `tokenizer_config.json` count for the Llama and Gemma
    classes of transformers 4 alone. What the files beside it add is, as in every version, tokens
    that it lacks, names of special tokens, the template, and what `added_tokens_decoder` says of
    the white space around a token. Truncation and padding that the file may ask for are dropped.

    Args:
      chat_template: a file with the template to use in place of the directory's.
      day: what the template calls today, by default the day that it is.

    Raises:
      TokenizerError: the directory holds no tokenizer, or a file cannot be read; names it.
    """
    directory = Path(directory)
    if not directory.is_dir():
        problem = "is no directory: download the model, and name the directory that it is in"
        raise TokenizerError(f"{directory}: {problem}")
    if not any((directory / name).is_file() for name in VOCABULARY_FILES):
        problem = f"no tokenizer here: expected one of {', '.join(VOCABULARY_FILES)}"
        if exports := _exports(directory):
            problem = f"a training run's directory, whose models lie below it: name {exports}"
        elif (directory / "inputs.json").is_file() or (directory / "checkpoints").is_dir():
            problem = "a training run that is not done: its model comes at its end, in `export`"
        raise TokenizerError(f"{directory}: {problem}")
    hf = _as_filed(directory) if (directory / FILE).is_file() else _as_converted(directory)
    if chat_template is not None:
        try:
            hf.chat_template = Path(chat_template).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = f"the chat template cannot be read: {error}"
            raise TokenizerError(f"{chat_template}: {problem}") from error
    tokenizer = ChatTokenizer(hf, str(directory), day)
    if tokenizer.opens_oddly:
        log.warning(
            "%s: the chat template %s, and the model reads what it writes: where the model was not "
            "trained on that, give the template that it was trained with (--chat-template)",
            chat_template or directory,
            tokenizer.opens_oddly,
        )
    if dated := tokenizer.dated:
        log.warning(
            "%s: the chat template writes the day (%s) into conversations, so tokens and scores "
            "change with it: for the same on every day, use a template with a date in place of "
            "strftime_now (--chat-template)",
            directory,
            dated,
        )
    return tokenizer


def _exports(directory: Path) -> str:
    """The model directories below that of a run, or of one of its models."""
    held = (*directory.glob("export/config.json"), *directory.glob("*/export/config.json"))
    return " or ".join(str(path.parent) for path in sorted(held))


def telling(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Texts that tell tokenizers of one vocabulary apart: `TELLING`, and one for each added token,
    with white space on both sides and with none."""
    return [*TELLING, *(f"a {token} b{token}c\n" for token in tokenizer.get_added_vocab())]


def _as_filed(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of `tokenizer.json`, with what the files beside it say of special tokens."""
    path = directory / FILE
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # of no kind of its own
        raise TokenizerError(f"{path}: the tokenizer cannot be read: {error}") from error
    hf = _read(PreTrainedTokenizerFast, directory, tokenizer_object=backend)
    hf.backend_tokenizer.no_truncation()
    hf.backend_tokenizer.no_padding()
    try:
        family = _read(AutoTokenizer, directory, trust_remote_code=False)
        text = _first_difference(hf, family, telling(hf))
    except Exception as error:  # a class that cannot be had, or fails: the file needs none
        log.info("not compared with AutoTokenizer: %s", error)
        return hf
    if text is not None:
        log.warning(
            "%s: AutoTokenizer of transformers %s makes a %s of this directory, which reads %r as "
            "other tokens than the file: the file's are used here, and programs that go by "
            "AutoTokenizer use others",
            path,
            transformers.__version__,
            type(family).__name__,
            text,
        )
    _name_special_tokens(hf, family)
    return hf


def _as_converted(directory: Path) -> PreTrainedTokenizerFast:
    """What transformers makes of a vocabulary in another form than `tokenizer.json`."""
    hf = _read(AutoTokenizer, directory, trust_remote_code=False)
    log.warning(
        "%s: no %s here: tokens are those of a conversion by transformers %s (%s), with nothing to "
        "compare them with",
        directory,
        FILE,
        transformers.__version__,
        type(hf).__name__,
    )
    return hf


def _read(family: type, directory: Path, **options: Any) -> PreTrainedTokenizerFast:
    try:
        return family.from_pretrained(str(directory), local_files_only=True, **options)
    except Exception as error:  # each library below raises its own kinds for damaged files
        raise TokenizerError(f"{directory}: the tokenizer cannot be read: {error}") from error


def _first_difference(
    one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast, texts: list[str]
) -> str | None:
    """The first text that the two read as different ids, bare or with BOS and EOS."""
    for whole in (False, True):
        ids = [each(texts, add_special_tokens=whole)["input_ids"] for each in (one, other)]
        for text, left, right in zip(texts, *ids, strict=True):
            if left != right:
                return text
    return None


def _name_special_tokens(hf: PreTrainedTokenizerFast, family: PreTrainedTokenizerFast) -> None:
    """Takes over the names that only the family's class gives to tokens which the file declares."""
    declared = {token.content: token for token in hf.added_tokens_decoder.values()}
    named = {
        name: declared[token]
        for name, token in family.special_tokens_map.items()
        if name not in hf.special_tokens_map and token in declared
    }
    hf.add_special_tokens(named)


def _blank(text: str) -> str:
    """The white space that a text begins with."""
    return text[: len(text) - len(text.lstrip())]


def _on_day(template: str, day: date) -> str:
    """The template with a `strftime_now` of its own that knows this day alone.

    That of transformers asks the clock, at every rendering, and can be given no other answer.
    """
    if "strftime_now" not in template:
        return template
    codes = (f"%{pad}{letter}" for letter in string.ascii_letters for pad in ("", "-"))
    written = "".join(
        f" | replace({code!r}, {day.strftime(code)!r})" for code in codes if code in template
    )
    # The line break belongs to the tag before it and is not written.
    return (
        f"{{% macro strftime_now(format) %}}{{{{ format{written} }}}}{{% endmacro %}}\n{template}"
    )


def _with_text(turn: dict[str, Any]) -> dict[str, Any]:
    """A message whose calls have their arguments as text of JSON."""
    calls = []
    for call in turn.get("tool_calls", ()):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
            said = json.dumps(function["arguments"], ensure_ascii=False)
            call = call | {"function": function | {"arguments": said}}
        calls.append(call)
    return turn | ({"tool_calls": calls} if calls else {})


def _fold(messages: Conversation) -> Conversation:
    """The opening system message as the beginning of the first user turn."""
    user = next((i for i, message in enumerate(messages) if message.role == "user"), None)
    if messages[0].role != "system" or user is None:
        return messages
    text = f"{messages[0].content}\n\n{messages[user].content}"
    joined = dataclasses.replace(messages[user], content=text)
    return (*messages[1:user], joined, *messages[user + 1 :])
