"""Upload of a finished folder to the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path

from bon.errors import BonError, OutputError, SettingsError, first_line
from bon.exports.folder import MARKER

__all__ = ["push_folder"]

_TOKEN_VARIABLE = "HF_TOKEN"


def push_folder(folder: Path, repo_id: str, *, private: bool, token: str | None = None) -> str:
    """Upload a folder as a Hub dataset, which is made where there is none, and return its address.

    The token comes from `HF_TOKEN` where none is given, the Hub's address from `HF_ENDPOINT`. Files
    that are gone from the folder's `data/`, `train/` and `test/` are taken away there too.

    Raises:
        SettingsError: no token, a bad repo id, or huggingface_hub is missing.
        OutputError: the Hub refuses, or cannot be reached.
    """
    token = token or os.environ.get(_TOKEN_VARIABLE)
    if not token:
        raise SettingsError(
            "no token for the Hub",
            where=f"--push-to-hub {repo_id}",
            next_step=f"make a token with write access in the Hub's settings and export it as "
            f"{_TOKEN_VARIABLE}; the result is in {folder}",
        )
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise SettingsError(
            "--push-to-hub needs huggingface_hub",
            next_step="pip install 'bon-cli[curation]'",
        ) from None
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.repo_info(repo_id, repo_type="dataset").private:
            raise _public(repo_id)  # it was there before, and stays what it was
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Upload with bon",
            ignore_patterns=[f"{MARKER}*"],
            delete_patterns=["data/*", "train/*", "test/*"],
        )
    except BonError:
        raise
    except HFValidationError as error:
        raise SettingsError(
            f"bad value for --push-to-hub: {repo_id!r}",
            why=first_line(error),
            next_step="give it as organisation/name",
        ) from error
    except Exception as error:
        raise _refused(folder, repo_id, error) from error
    return str(url)


def _public(repo_id: str) -> SettingsError:
    return SettingsError(
        f"{repo_id} is there already, and public",
        where=f"--push-to-hub {repo_id}",
        next_step="add --public if that is meant, or choose another name",
    )


def _refused(folder: Path, repo_id: str, error: Exception) -> BonError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    match status:
        case 401:
            advice = f"{_TOKEN_VARIABLE} is not valid (any more): make a new one"
        case 403:
            advice = f"give {_TOKEN_VARIABLE} write access to {repo_id}, or choose another name"
        case _:
            advice = "try again later"
    return OutputError(
        f"the Hub did not take {repo_id}",
        where=str(folder),
        why=first_line(error),
        next_step=f"{advice}; the result is complete on disk and can be uploaded from there",
    )
