"""Names that options have elsewhere (TRL, transformers, OpenRLHF), for people who come from there.

They are no second names of ours: a command refuses them, and says what they are called here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

_ROWS = "rows (packed rows, over all devices: one holds several comparisons)"

HERE = {
    "base": "base model_name_or_path model_name model pretrain pretrained base_model",
    "model": "model_name_or_path model_name base pretrain pretrained base_model",
    "chat-template": "chat_template_path tokenizer_chat_template",
    "data": "train_file train_files train_data train_dataset dataset dataset_name data_path",
    "eval": "eval_file validation_file test_file eval_data eval_dataset eval_dataset_name",
    "run-dir": "output_dir out_dir save_path ckpt_path resume_from_checkpoint",
    "out": "output_dir out_dir output output_path",
    "method": "loss_type loss",
    "steps": "max_steps num_steps num_train_steps train_steps total_steps",
    "epochs": "num_train_epochs num_epochs max_epochs n_epochs",
    "seed": "random_seed data_seed",
    _ROWS: "batch_size per_device_train_batch_size per_device_batch_size train_batch_size "
    "micro_batch_size micro_train_batch_size per_device_eval_batch_size eval_batch_size bs",
    "accumulate": "gradient_accumulation_steps grad_accum accumulate_grad_batches",
    "max-length": "max_len max_seq_length max_seq_len model_max_length seq_len cutoff_len",
    "learning-rate": "lr lrate learningrate",
    "warmup (a share of the steps)": "warmup_ratio warmup_steps lr_warmup_ratio",
    "weight-decay": "wd l2",
    "clip": "max_grad_norm max_norm gradient_clipping gradient_clip_val grad_clip",
    "train lora": "use_peft use_lora lora peft",
    "lora.rank": "lora_r lora_rank",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.targets": "lora_target_modules target_modules lora_target",
    "dtype bfloat16": "bf16",
    "dtype": "torch_dtype precision mixed_precision fp16 half",
    "remat full": "gradient_checkpointing use_gradient_checkpointing activation_checkpointing",
    "mesh.fsdp": "fsdp zero_stage",
    "mesh.tensor": "tensor_parallel_size tp ds_tensor_parallel_size",
    "log-every": "logging_steps log_steps",
    "checkpoint-every": "save_steps save_every",
    "eval-every": "eval_steps evaluation_steps",
    "keep": "save_total_limit max_ckpt_num",
    "select best": "load_best_model_at_end",
    "log": "report_to",
    "log wandb": "use_wandb wandb",
    "log tensorboard": "use_tensorboard tensorboard",
    "push": "push_to_hub hub_model_id",
}
"""What is written here (and in parentheses how it differs), for what is written elsewhere."""


def hints(given: Sequence[str], fields: Collection[str]) -> Iterator[str]:
    """A line for each name on a command line that an option of this command has elsewhere.

    Args:
      given: the arguments.
      fields: of the command: "learning_rate", "lora.rank".
    """
    for argument in given:
        written = argument.split("=")[0]
        name = written.removeprefix("--").replace("-", "_").lower()
        if not written.startswith("--") or name in fields:
            continue
        for here, names in HERE.items():
            if name in names.split() and here.split()[0].replace("-", "_") in fields:
                option, _, differs = here.partition(" (")
                yield f"{written} is --{option} here" + (f" ({differs}" if differs else "")
                break
