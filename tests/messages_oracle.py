"""What Hugging Face's torch Gemma says of conversations: the oracle of tests/test_messages.py.

    python -m tests.messages_oracle

writes tests/fixtures/messages: a small random GemmaForSequenceClassification with the toy world's
tokenizer, and for every response of rows.jsonl its hidden states, reward and log-prob, and the
gradients of one GRM loss. It runs each response by itself, unpadded, and shares no code with jaxrm.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "fixtures" / "messages"
TOKENIZER = Path(__file__).parents[1] / "jaxrm" / "data" / "toy_assets"
ALPHA, BETA = 0.1, 0.1


def answers(directory: Path = FOLDER) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(values, gradients) by torch, in float32: values keyed "<row>/<response>/<what>"."""
    import torch
    from torch.nn.functional import logsigmoid
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    rows = [json.loads(line) for line in (FOLDER / "rows.jsonl").read_text("utf-8").splitlines()]
    values: dict[str, np.ndarray] = {}
    losses = []
    for r, row in enumerate(rows):
        rewards, logps = [], []
        opened = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        for k, answer in enumerate((row["chosen"], row["rejected"])):
            messages = [*row["prompt"], {"role": "assistant", "content": answer}]
            ids = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
            # The response is what follows the opened turn, up to its end-of-turn.
            end = len(ids) - ids[::-1].index(tokenizer.convert_tokens_to_ids("<end_of_turn>"))
            start = len(tokenizer(opened, add_special_tokens=False)["input_ids"])
            hidden = model.model(torch.tensor([ids])).last_hidden_state[0]
            reward = model.score(hidden[-1])[0]
            everything = (hidden @ model.model.embed_tokens.weight.T).log_softmax(-1)
            targets = torch.arange(start, end)
            logp = everything[targets - 1, torch.tensor(ids)[targets]].sum()
            rewards.append(reward)
            logps.append(logp)
            values |= {
                f"{r}/{k}/ids": np.array(ids),
                f"{r}/{k}/hidden": hidden.detach().numpy(),
                f"{r}/{k}/reward": reward.detach().numpy(),
                f"{r}/{k}/logp": logp.detach().numpy(),
            }
        text = -logsigmoid(BETA * logps[0])
        losses.append(-(1 - ALPHA) * logsigmoid(rewards[0] - rewards[1]) + ALPHA * text)
    loss = torch.stack(losses).mean()
    loss.backward()
    values["loss"] = loss.detach().numpy()
    return values, {name: p.grad.numpy() for name, p in model.named_parameters()}


def main() -> None:
    """Writes the fixture."""
    import torch
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer, GemmaConfig, GemmaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        num_labels=1,
        initializer_range=0.3,
    )
    model = GemmaForSequenceClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.normal_(0.0, 0.3)
    model.save_pretrained(FOLDER)
    tokenizer.save_pretrained(FOLDER)
    values, gradients = answers()
    np.savez_compressed(FOLDER / "values.npz", **values)
    save_file(gradients, FOLDER / "gradients.safetensors")


if __name__ == "__main__":
    main()
