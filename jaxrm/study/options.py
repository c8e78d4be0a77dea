"""The options of a run as --help groups them, what most people need first."""

from __future__ import annotations

from jaxrm.cli.help import Groups

GROUPS: Groups = {
    "what most people need": (
        "base",
        "data",
        "eval",
        "method",
        "run_dir",
        "preset",
        "train",
        "epochs",
        "steps",
        "learning_rate",
        "seed",
    ),
    "methods, the reward head and LoRA": (
        "strength",
        "text",
        "models",
        "regularizer",
        "alpha",
        "beta",
        "smoothing",
        "reference_cache",
        "head",
        "lora",
    ),
    "batches and lengths": (
        "chat_template",
        "max_length",
        "truncate_prompt",
        "group_prompts",
        "rows",
        "row_length",
        "accumulate",
    ),
    "optimizer": ("warmup", "weight_decay", "clip"),
    "devices and memory": ("dtype", "remat", "mesh"),
    "logging, evaluating and keeping": (
        "log",
        "log_every",
        "eval_every",
        "eval_sample",
        "select",
        "checkpoint_every",
        "keep",
        "export_language_model",
        "push",
    ),
    "the toy world": ("lexicon", "pairs", "held_out", "pretrain", "documents"),
}
"""Of all commands that train; each has some of them."""
