"""The model card of an exported reward model: README.md in the Hugging Face Hub's format.

It says what the run measured and how to use the files; a number that was not measured is not there.
What it says of other programs was read in their sources: transformers 4.57.6 and 5.23, vLLM 0.16,
TRL 1.10, RewardBench 0.1.5 and OpenRLHF 0.11.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from jaxrm.data.tally import Tally
from jaxrm.huggingface.mixture import Member
from jaxrm.huggingface.names import on_hub
from jaxrm.models.config import ModelConfig
from jaxrm.models.heads import HeadConfig
from jaxrm.models.uncertainty import RewardScale
from jaxrm.report.tables import between, markdown, number

Z = 1.959964
"""Standard errors on each side of a 95 % interval."""

COLUMNS = ["split", "n", "accuracy, %", "95 % interval"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What an export is.

    Attributes:
      config, head: of the exported model; of a mixture the members' configuration, and no head.
      gated: whether a gate makes one reward of the head's outputs.
      members: of a mixture.
    """

    config: ModelConfig
    head: HeadConfig | None
    gated: bool = False
    members: tuple[Member, ...] = ()

    @property
    def readers(self) -> tuple[str, ...]:
        """The programs that read the head's outputs, or the reward where there is one, off the
        files."""
        if self.head is None:
            return ("jaxrm",)
        if self.head.kind == "mlp":
            return ("jaxrm", "GRM") if self.head.outputs == 1 else ()
        # vLLM turns <Family>ForSequenceClassification into <Family>ForCausalLM, which for the name
        # of Gemma 3's text models finds nothing.
        by_name = () if self.config.model_type == "gemma3_text" else ("vLLM",)
        of_outputs = ("transformers", *by_name)
        if self.gated:
            return ("jaxrm", *of_outputs)
        return (*of_outputs, *(("TRL", "RewardBench", "OpenRLHF", "jaxrm") if self.is_one else ()))

    @property
    def is_one(self) -> bool:
        """Whether a response gets one number."""
        return self.head is None or self.head.outputs == 1 or self.gated


def write(
    name: str,
    results: Mapping[str, Any],
    kind: Kind,
    *,
    method: str,
    base: str,
    scale: RewardScale | None = None,
) -> str:
    """README.md for one model of a run: YAML front matter, then Markdown.

    Args:
      name: the model's, among `results["models"]`.
      results: what results.json holds (see jaxrm.report), as read from there or as given to
        `report.write`.
      method: one paragraph on how the model was trained, with its paper; Markdown.
      base: the name of the model that training began from. One of the form "owner/name" or
        "owner/name@revision" is taken for the Hub's and linked.
      scale: where its rewards lie, if that was measured.

    Raises:
      ValueError: `results` has no model of that name.
    """
    if name not in results["models"]:
        raise ValueError(f"no model {name!r} among {', '.join(results['models'])}")
    sections = {
        "Training data": _data(results.get("data", {})),
        "Metrics": _metrics(name, results, kind.config, kind.head),
        "Reward scale": _scale(scale, of_several=bool(kind.members)),
        "Use": _use(kind),
        "Known limits": LIMITS,
    }
    # The Hub shows how to load a model with its library.
    library = "transformers" if "transformers" in kind.readers and not kind.gated else "jaxrm"
    parts = [
        f"---\n{_front_matter(base, kind.config, library).to_yaml()}\n---",
        f"# {name}: a reward model on {base}",
        ONE if kind.is_one else SEVERAL.format(outputs=kind.head.outputs),
        method,
        _facts(name, results, base, kind),
        *(f"## {title}\n\n{text.strip()}" for title, text in sections.items() if text),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(base: str, config: ModelConfig, library: str) -> ModelCardData:
    # No model-index: it names data sets of the Hub, and a split's name is not one. And a base is
    # linked whatever its revision, for which there is no field.
    of_hub = on_hub(base)
    return ModelCardData(
        library_name=library,
        pipeline_tag="text-classification",
        tags=["reward-model", "jaxrm", config.model_type],
        base_model=of_hub[0] if of_hub else None,
    )


def _described(kind: Kind) -> dict[str, str]:
    """What the reward is read from."""
    if kind.members:
        counts = [
            f"{m.weight:.4g} * (`{m.directory}`'s {m.reads} - {m.offset:.4g})" for m in kind.members
        ]
        return {"Reward": " + ".join(counts)}
    head = kind.head
    kinds = {
        "linear": "linear, without bias",
        "mlp": f"GRM's, with biases; hidden layers: {head.layers} of {head.hidden:,} units",
    }
    gate = "; a gate on the prompt weighs them" if kind.gated else ""
    return {"Reward head": f"{kinds[head.kind]}; outputs: {head.outputs}{gate}"}


def _facts(name: str, results: Mapping[str, Any], base: str, kind: Kind) -> str:
    facts = {
        "Base model": f"`{base}`, of the family `{kind.config.model_type}`",
        **_described(kind),
        "Seed": ", ".join(map(str, results.get("seeds", []))),
    }
    if chosen := results.get("selected", {}).get(name):
        facts["Step"] = f"{chosen['step']}, chosen for its accuracy on the split `val`"
    return "\n".join(f"- {title}: {fact}" for title, fact in facts.items() if fact)


def _data(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    tallies = {
        name: entry if isinstance(entry, Tally) else Tally(**entry) for name, entry in data.items()
    }
    lines = "\n".join(f"- `{name}`: {tally}" for name, tally in tallies.items())
    return f"Counts are of comparisons, each one prompt with its ranked responses.\n\n{lines}"


def _metrics(
    name: str, results: Mapping[str, Any], config: ModelConfig, head: HeadConfig | None
) -> str:
    splits = results["models"][name]
    parts = []
    if rewards := _measured(splits):
        rows = [_row(split, figures) for split, figures in rewards.items()]
        parts += [ACCURACY, markdown(COLUMNS, rows, left=1)]
    if language := _measured(_languages(splits)):
        before = _measured(_languages(results.get("base", {})))
        bases = [number(before[split]["accuracy"]) if split in before else "" for split in language]
        rows = [_row(split, figures) for split, figures in language.items()]
        rows = [[*row, base] for row, base in zip(rows, bases, strict=True)]
        is_gone = head is not None and head.kind == "linear" and not config.tie_embeddings
        parts.append(f"{LANGUAGE} {GONE}" if is_gone else LANGUAGE)
        parts.append(markdown([*COLUMNS, "base, %"], rows, left=1))
    return "\n\n".join([*parts, INTERVAL]) if parts else ""


def _languages(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {split: stats["language"] for split, stats in splits.items() if "language" in stats}


def _measured(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Those that have an accuracy, which a head of several outputs has not."""
    return {name: stats for name, stats in splits.items() if stats.get("accuracy") is not None}


def _row(split: str, figures: Mapping[str, Any]) -> list[str]:
    accuracy, n = figures["accuracy"], figures["n"]
    # A bar would end the cell, even in code.
    name = split.replace("|", r"\|")
    return [f"`{name}`", f"{n:,}", number(accuracy), between(*_interval(accuracy, n))]


def _interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n (1927, Probable Inference).

    The share plus or minus 1.96 standard errors would have no width at 0 or 1 and leave [0, 1] near
    them; this does neither. Comparisons of more than two responses are partly right, hence vary
    less than the right or wrong that it assumes, so for them it is too wide if anything.
    """
    shrink = 1 + Z**2 / n
    middle = (share + Z**2 / (2 * n)) / shrink
    half = Z / shrink * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return max(0.0, middle - half), middle + half  # rounding would print -0.0


def _scale(scale: RewardScale | None, of_several: bool) -> str:
    if scale is None:
        return ""
    names = "under `scale`" if of_several else "as `reward_offset` and `reward_scale`"
    return (
        f"On {scale.reference} ({scale.responses:,} responses) the rewards have mean "
        f"{scale.offset:.4g} and standard deviation {scale.scale:.4g}, so that (reward - offset) / "
        f"scale is standardised there. `config.json` records the two {names}. The files hold the "
        "raw reward, which the programs below return as it is."
    )


def _use(kind: Kind) -> str:
    """How to load it, for whoever can: what a program cannot read is not offered to it."""
    parts = [PLACE]
    if kind.members:
        names = ", ".join(f"`{member.directory}`" for member in kind.members)
        parts.append(MIXTURE.format(names=names))
    elif kind.gated:
        parts.append(GATED.format(outputs=kind.head.outputs))
    elif kind.head.kind == "mlp":
        parts.append(MLP)
    for reader in kind.readers:
        parts.append(SECTIONS[reader])
        if reader == "transformers" and kind.config.attention_softcap is not None:
            parts.append(CAPPED)
    return "\n\n".join(part.strip() for part in parts)


ONE = """\
A reward model: given a conversation that ends with the assistant's response, it returns one number,
higher for a better response."""

SEVERAL = """\
A reward model: given a conversation that ends with the assistant's response, it returns {outputs}
numbers (`num_labels` is {outputs}). The files do not say what each of them stands for."""

MIXTURE = """\
The directory holds several models, {names}, and `config.json` what each counts: the reward is the
sum of weight * (what is read of it - offset). jaxrm reads it. transformers and servers of reward
models do not; each member by itself is a model directory of theirs, the tokenizer lying beside."""

GATED = """\
The head has {outputs} outputs, and the reward is their sum weighed by a gate (`gate.safetensors`),
which reads the state at the end of the prompt. jaxrm returns the reward, others the outputs."""

ACCURACY = """\
Accuracy is the share of comparisons whose better response gets the strictly higher reward; a tie is
no win. A comparison of more than two responses counts by the share of its ordered pairs."""

LANGUAGE = """\
How often the better response is also the likelier one under the language-model head, here and in
the base that training began from: what is left of its ability to write."""

GONE = "Measured before the export: these files do not hold that head."

INTERVAL = """\
The intervals are Wilson's, for n independent comparisons: they cover which comparisons happened to
be in the split, and not what another training run would give."""

PLACE = "`DIR` is this directory, or its name on the Hub."

TRANSFORMERS = """
### transformers

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoModelForSequenceClassification.from_pretrained("DIR", dtype=torch.float32)
question = {"role": "user", "content": "What is the capital of France?"}
conversations = [
    [question, {"role": "assistant", "content": "Paris."}],
    [question, {"role": "assistant", "content": "I think that it is Lyon."}],
]
inputs = tokenizer.apply_chat_template(
    conversations, padding=True, return_tensors="pt", return_dict=True
)
with torch.inference_mode():
    rewards = model(**inputs).logits  # [conversations, outputs]
```

Either padding side will do: transformers reads the last token that is not padding, and the padding
token here is no end-of-sequence token. The head is kept in float32; loaded in bfloat16, it makes
rewards of two or three significant digits.
"""

CAPPED = """
With transformers 4 give `from_pretrained` also `attn_implementation="eager"`: its default there
leaves out the soft-cap on attention, and the rewards are other ones.
"""

VLLM = """
### vLLM

```bash
vllm serve DIR --runner pooling
curl http://localhost:8000/classify -H 'Content-Type: application/json' -d '{
  "model": "DIR",
  "messages": [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."}
  ],
  "use_activation": false
}'
```

`data[0].probs` holds the head's raw outputs: `use_activation` asks for them in a request, and
`problem_type` in `config.json` in all. Text that the chat template has rendered goes in as
`"input"` in the place of `"messages"`, with `"add_special_tokens": false`, or it may get a second
BOS.
"""

TRL = """
### TRL

```python
trainer = GRPOTrainer(model=policy, reward_funcs="DIR", args=args, train_dataset=prompts)
```

Prompts must be lists of messages, which TRL renders with the chat template of this directory. It
does not render prompts that are strings.
"""

REWARDBENCH = """
### RewardBench

```bash
rewardbench --model DIR --not_quantized --torch_dtype float32
```

Without `--not_quantized` the model is loaded in 8 bits.
"""

OPENRLHF = """
### OpenRLHF

```bash
python -m openrlhf.cli.serve_rm --reward.model_name_or_path DIR --data.max_len 8192
```

`POST /get_reward {"query": [TEXT, ...]}` takes texts that the chat template has rendered; those
longer than `--data.max_len` tokens lose their end, where the reward is read. As the
`--reward.model_name_or_path` of PPO the model gets the policy's token ids, so the policy must have
the same tokenizer.
"""

JAXRM = """
### jaxrm

```bash
python -m jaxrm.score --model DIR in.jsonl out.jsonl
```

Scores pairs, or prompts with any number of responses, in input order.
"""

MLP = """
The head is an MLP, in the layout of GRM's repository (`v_head.summary.*` beside the language
model's weights). jaxrm reads it; servers of reward models do not. With transformers,
`AutoModelForSequenceClassification` draws a random head in its place, and so does what is built on
it.
"""

GRM = """
### GRM

```python
model = GRewardModel.from_pretrained("DIR").eval()
rewards = model(input_ids, attention_mask=attention_mask)
```

The class is in `rm_eval/grm_utils.py` of https://github.com/YangRui2015/Generalizable-Reward-Model
and needs transformers 4. Pad on the right.
"""

SECTIONS = {
    "transformers": TRANSFORMERS,
    "vLLM": VLLM,
    "TRL": TRL,
    "RewardBench": REWARDBENCH,
    "OpenRLHF": OPENRLHF,
    "jaxrm": JAXRM,
    "GRM": GRM,
}
"""How each program loads it."""

LIMITS = """
- Compare rewards of responses to the same prompt only: training never compares two prompts, so what
  differs between them means nothing.
- A reward is read at the last token of the whole conversation as the chat template renders it. A
  cut end, another template, a second BOS or an opened next turn gives another number.
- What this card gives no number for was not measured.
"""
