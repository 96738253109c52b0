"""A data set of the Hugging Face hub -> the folder in its cache that holds it."""

from __future__ import annotations

import re
from pathlib import Path

from boxtune.errors import DataError


def is_hub_id(given: str) -> bool:
    """Whether what a user wrote can be the name of a data set on the hub, `owner/name`."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", given) is not None


def fetch_hub_dataset(name: str) -> Path:
    """The folder of the data set `owner/name`: from the hub's cache, else downloaded as a whole.

    Honours HF_HUB_OFFLINE. Raises DataError if it is in neither, or if the hub refuses it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"{Path(name).absolute()}, then the hub"
    fix = "check the name (owner/name), log in with `hf auth login` if it is private, or give a local folder"
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except LocalEntryNotFoundError as error:
        what = f"the data set {name!r} is neither a local path nor in the hub cache, and the hub cannot be reached"
        raise DataError(what, where=where, fix="download it elsewhere and give the local folder") from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"the data set {name!r} is no local path, and cannot be had from the hub: {said}"
        raise DataError(what, where=where, fix=fix) from error
