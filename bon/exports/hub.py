"""Upload of a finished folder to the Hugging Face Hub."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from bon.errors import BonError, OutputError, SettingsError, first_line
from bon.exports.folder import MARKER, read_marker

__all__ = ["check_push", "push_folder"]

_TOKEN_VARIABLE = "HF_TOKEN"
_CARD = "README.md"
_SHARDS = "*-?????-of-?????.*"


def check_push(repo_id: str, token: str | None = None) -> str:
    """Find without the network what would stop an upload; return the token.

    Raises:
        SettingsError: no token, a bad repo id, or huggingface_hub is missing.
    """
    where = f"--push-to-hub {repo_id}"
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id
    except ImportError:
        raise SettingsError(
            "--push-to-hub needs huggingface_hub",
            where=where,
            next_step="pip install 'bon-cli[curation]'",
        ) from None
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SettingsError(
            f"bad value for --push-to-hub: {repo_id!r}",
            why=first_line(error),
            next_step="give it as organisation/name",
        ) from None
    token = token or os.environ.get(_TOKEN_VARIABLE)
    if not token:
        raise SettingsError(
            "no token for the Hub",
            where=where,
            next_step="make a token with write access in the Hub's settings and export it as "
            + _TOKEN_VARIABLE,
        )
    return token


def push_folder(folder: Path, repo_id: str, *, private: bool, token: str | None = None) -> str:
    """Upload a folder as a Hub dataset, which is made where there is none, and return its address.

    The token comes from `HF_TOKEN` where none is given, the Hub's address from `HF_ENDPOINT`.
    Only what an export made in the folder goes up, and its README.md; shards that are no more in
    the folder are taken away there too.

    Raises:
        SettingsError: see `check_push`; or the dataset is there, and public where it may not be.
        OutputError: the folder holds no export, or the Hub refuses or cannot be reached.
    """
    ours = _patterns(folder)
    token = check_push(repo_id, token)
    from huggingface_hub import HfApi

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
            allow_patterns=ours,
            delete_patterns=[f"{name}/{_SHARDS}" for name in ("data", "train", "test")],
        )
    except BonError:
        raise
    except Exception as error:  # the Hub's, the network's, the disk's: all end the upload alike
        raise _refused(folder, repo_id, error) from error
    return str(url)


def _patterns(folder: Path) -> list[str]:
    """Return what of the folder may be seen by others: never what people keep beside the set."""
    names = read_marker(folder)
    if names is None:
        raise OutputError(
            "there is no export to upload",
            where=str(folder),
            why=f"it has no {MARKER}",
            next_step="write the set into that folder first",
        )
    folders = [name for name in names if (folder / name).is_dir()]
    files = [glob.escape(name) for name in {_CARD, *names}.difference(folders)]
    return [*files, *(f"{glob.escape(name)}/{_SHARDS}" for name in folders)]


def _public(repo_id: str) -> SettingsError:
    return SettingsError(
        f"{repo_id} is there already, and public",
        where=f"--push-to-hub {repo_id}",
        next_step="add --public if that is meant, or choose another name",
    )


def _status(error: BaseException | None) -> int | None:
    """Return the Hub's answer, which huggingface_hub may have wrapped in errors of its own."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _refused(folder: Path, repo_id: str, error: Exception) -> BonError:
    match _status(error):
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
