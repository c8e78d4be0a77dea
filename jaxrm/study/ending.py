"""The last words of a run about a model: where it lies, what reads it, and how to score with it."""

from __future__ import annotations

from pathlib import Path

from jaxrm.cli.help import another
from jaxrm.huggingface import tensorfile
from jaxrm.huggingface.card import Kind


def of_model(name: str, folder: Path, kind: Kind) -> str:
    """Lines about an export, and about the adapter if there is one.

    Args:
      folder: of the model in the run's directory, with `export` in it.
    """
    export, adapter = folder / "export", folder / "adapter"
    lines = [f"{name}: {export} ({held(export)})", f"  {read_by(kind)}"]
    if adapter.is_dir():
        lines.append(f"  the adapter alone, which needs the base: {adapter} ({held(adapter)})")
    score = another("score", "jaxrm.score")
    lines.append(f"  {score} --model {export} IN.jsonl OUT.jsonl")
    return "\n".join(lines)


def read_by(kind: Kind) -> str:
    """Who reads the reward; loudly, where that is not everybody."""
    if kind.members:
        return (
            "READ BY jaxrm ALONE: it is a directory of several models, each of which other "
            "programs read by itself"
        )
    if kind.gated:
        outputs = kind.head.outputs
        return f"READ BY jaxrm ALONE: others read the {outputs} attributes that its gate weighs"
    if "transformers" not in kind.readers:
        return (
            "READ BY jaxrm AND GRM'S OWN CODE ALONE: its head is an MLP, in whose place others, "
            "AutoModelForSequenceClassification among them, put a random one without an error; "
            "--head.kind linear trains a head that they read"
        )
    return f"read by {', '.join(kind.readers)}"


def held(directory: Path) -> str:
    """The size of a directory's weights, and what most of them are stored in: "513 MB, float32"."""
    sizes: dict[str, int] = {}
    for path in sorted(directory.rglob("*.safetensors")):
        for tensor in tensorfile.read(path).values():
            sizes[str(tensor.dtype)] = sizes.get(str(tensor.dtype), 0) + tensor.nbytes
    total = sum(sizes.values())
    size = f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:,.1f} MB"
    return f"{size}, {max(sizes, key=sizes.get)}"
