"""Model directories by name: one on this machine, or one of the Hugging Face Hub.

A name on the Hub is `owner/name`, or `owner/name@revision` with a branch, a tag or a commit. It is
downloaded into `huggingface_hub`'s own cache, where `hf download` and transformers find it too.
Code that a repository holds is never downloaded.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import HFValidationError, validate_repo_id

from jaxrm.errors import ModelFileError, phrase
from jaxrm.huggingface import layout

log = logging.getLogger(__name__)

WEIGHTS = "*.safetensors"

TOKENIZER = ("*.json", "*.jinja", "*.model", "*.txt")
"""What is downloaded for a tokenizer, a configuration included."""

MODEL = (*TOKENIZER, WEIGHTS)
"""What is downloaded for a model, or for an adapter."""

ELSEWHERE = ("*/*", "consolidated*")
"""What is left where it is: folders (checkpoints, and the files of other programs), and Mistral's
own copy of its weights."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclasses.dataclass(frozen=True)
class Local:
    """Where a model lies on this machine.

    Attributes:
      directory: in Hugging Face's layout.
      revision: the Hub's commit that it is of; "" for a directory that was named as one.
    """

    directory: Path
    revision: str = ""


def local(name: str | Path, revision: str = "", files: Sequence[str] = MODEL) -> Local:
    """The directory of that name, or the Hub's `owner/name` or `owner/name@revision`, downloaded.

    In a run of several processes each must call this: every host needs the files.

    Args:
      revision: of the Hub, where the name says none. A run that is resumed gives the one that it
        began with.
      files: patterns of the names that are needed.

    Raises:
      ModelFileError: there is no such directory and the name is none of the Hub's form, or the Hub
        has no such model or revision, does not give it to this user, cannot be reached, or is not
        to be (HF_HUB_OFFLINE) and the cache lacks it; it holds no safetensors; or the disk is full.
    """
    if Path(name).is_dir():
        return Local(Path(name))
    parts = on_hub(name)
    if Path(name).exists() or parts is None:
        problem = "is a file" if Path(name).exists() else "is no directory here"
        raise ModelFileError(
            f"{name} {problem}: name a model directory, or a model on the Hub as owner/name or "
            "owner/name@revision"
        )
    repo, named = parts
    revision = named or revision
    try:
        directory = _download(repo, revision, files)
    except ModelFileError:
        raise
    except Exception as error:  # HTTP's and Xet's clients have errors of their own
        # A directory that was mistyped may look like a name on the Hub, so that comes first.
        problem = _problem(repo, revision, error)
        raise ModelFileError(f"{name} is no directory here, and {problem}") from error
    log.info("%s: commit %s of the Hub, in %s", repo, directory.name, directory)
    return Local(directory, directory.name)


def on_hub(name: str | Path) -> tuple[str, str] | None:
    """`owner/name` and the revision, "" where the name says none, of a name of the Hub's form; None
    for another."""
    repo, at, revision = str(name).partition("@")
    # What git allows in the name of a branch or a tag (git check-ref-format).
    if at and (not re.fullmatch(r"[^\s~^:?*\[\\]+", revision) or ".." in revision):
        return None
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return None
    return (repo, revision) if "/" in repo else None


def _download(repo: str, revision: str, files: Sequence[str]) -> Path:
    """The snapshot's directory, whose name is the commit."""
    wanted = {"repo_id": repo, "allow_patterns": list(files)}
    # Told that it is offline, version 1.31 finds a branch in its cache, but no commit.
    wanted["local_files_only"] = constants.HF_HUB_OFFLINE
    at, ignored = revision or None, list(ELSEWHERE)
    found = huggingface_hub.snapshot_download(revision=at, ignore_patterns=ignored, **wanted)
    directory = Path(found)
    if WEIGHTS in files and layout.is_mixture(directory):
        # Its members lie in folders.
        huggingface_hub.snapshot_download(revision=directory.name, **wanted)
    elif WEIGHTS in files and not any(directory.glob(WEIGHTS)):
        raise ModelFileError(_without_weights(repo, directory))
    return directory


def _without_weights(repo: str, directory: Path) -> str:
    """What a repository holds in the place of weights that can be read."""
    at = f"{repo}, commit {directory.name}"
    if constants.HF_HUB_OFFLINE:
        return f"{at}: the cache holds no safetensors of it: unset HF_HUB_OFFLINE to download them"
    there = huggingface_hub.HfApi().list_repo_files(repo, revision=directory.name)
    if pickles := [name for name in there if name.endswith(PICKLES)]:
        return (
            f"{at}: its weights are pickles ({', '.join(pickles)}), which run code when they are "
            "read: convert them (https://huggingface.co/docs/safetensors/convert-weights), or name "
            "owner/name@revision where a revision holds safetensors"
        )
    shown = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
    return f"{at}: it holds no safetensors at its top, only {shown or 'nothing'}"


def _problem(repo: str, revision: str, error: Exception) -> str:
    """Why a repository cannot be had, and what to do."""
    page, at = f"{constants.ENDPOINT}/{repo}", f"{repo}@{revision}" if revision else repo
    nothing = f"the cache ({constants.HF_HUB_CACHE}) holds no whole snapshot of {at}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the Hub's files do not fit on the disk of {constants.HF_HUB_CACHE}: make room, or "
            "set HF_HOME to a place on another disk"
        )
    if constants.HF_HUB_OFFLINE:
        return (
            f"the Hub is not asked, as HF_HUB_OFFLINE is set, and {nothing}: unset HF_HUB_OFFLINE, "
            "or name a directory"
        )
    if isinstance(error, errors.GatedRepoError):
        return f"the Hub's {repo} is gated: accept its terms on {page}, and log in (hf auth login)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the Hub shows you no {repo}: check the spelling; if it is private, log in (hf auth "
            "login) as someone who may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the Hub's {repo} has no revision {revision!r}: see the branches and tags on {page}"
    if status in (401, 403):
        return f"the Hub refuses {repo} to your token (hf auth login): {phrase(error)}"
    if status is not None:
        return f"the Hub cannot give {at} now, so try again later: {phrase(error)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"the Hub cannot be reached, and {nothing}: check the network, or name a directory: "
            f"{phrase(error)}"
        )
    return f"the Hub's {at} cannot be downloaded: {phrase(error)}"
