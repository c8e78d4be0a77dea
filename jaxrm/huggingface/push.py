"""An exported model put on the Hugging Face Hub, with its card."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from jaxrm.errors import ModelFileError, OptionError, phrase, require
from jaxrm.huggingface import hub, layout, names


def check(name: str) -> None:
    """Raises OptionError for a name that nothing can be pushed to, or where nobody is logged in.

    It asks nobody, so that it can be called before hours of training. Whether the user may write
    there is for the Hub to say.
    """
    is_one = names.on_hub(name) == (name, "")
    require(is_one, "--push", "owner/name, the name of a model on the Hub", name)
    if constants.HF_HUB_OFFLINE:
        raise OptionError(f"--push {name}: HF_HUB_OFFLINE is set, so unset it")
    try:
        token = huggingface_hub.get_token()
    except Exception as error:  # it may have to be refreshed
        raise OptionError(
            f"--push {name}: the Hub's token cannot be had: {phrase(error)}"
        ) from error
    if not token:
        advice = "log in (hf auth login), or set HF_TOKEN to a token that may write"
        raise OptionError(f"--push {name}: nobody is logged in to the Hub: {advice}")


def push(directory: Path, name: str) -> str:
    """Uploads a model directory, README.md included, and returns the address of its page.

    A repository that is not there is made, private. In one that is there, the files that make up a
    model are replaced by the directory's, the older ones removed; the rest stays. In a run of
    several processes one alone is to call this.

    Args:
      name: `owner/name`.

    Raises:
      OptionError: as `check`.
      ModelFileError: the directory is no model's, or the Hub does not take it.
    """
    check(name)
    is_model = all(any(directory.glob(sign)) for sign in hub.SIGNS)
    if not is_model and not layout.is_mixture(directory):
        raise ModelFileError(f"{directory} is no model directory: only such a one is pushed")
    api, page = huggingface_hub.HfApi(), f"{constants.ENDPOINT}/{name}"
    try:
        if not api.repo_exists(name):
            api.create_repo(name, private=True, exist_ok=True)
            print(f"{page}: made, and private: its settings there make it public")
        api.upload_folder(
            repo_id=name,
            folder_path=directory,
            commit_message="Upload a model of jaxrm's",
            # Or a shard of an earlier push would lie beside the model.
            delete_patterns=list(names.MODEL),
        )
    except Exception as error:  # HTTP's and Xet's clients have errors of their own
        again = f"to try again: hf upload {name} {directory}"
        problem = f"{directory} is not pushed to {name}: {_problem(name, error)}; {again}"
        raise ModelFileError(problem) from error
    return page


def _problem(name: str, error: Exception) -> str:
    """Why the Hub did not take it, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 403:
        return (
            f"you may not write there: log in (hf auth login) with a token that may write to "
            f"{name.partition('/')[0]}'s models, or push to an owner of your own"
        )
    if status == 401 or isinstance(error, errors.RepositoryNotFoundError):
        return "the Hub does not know your token: log in again (hf auth login)"
    return phrase(error)
