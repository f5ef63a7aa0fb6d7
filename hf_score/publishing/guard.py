"""What may go out: no pickle, no token, no local path, no image whose licence does not allow it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import CommitOperationAdd

from ..errors import HFScoreError
from ..report.redact import TOKEN_PATTERN

__all__ = ["OPEN_LICENCES", "UNWANTED", "check_checkpoint", "is_open_licence", "refuse_secrets"]

#: Pickles, `training_args.bin` and its token among them, and what a training needs to go on: no part of a checkpoint.
UNWANTED = re.compile(r"\.(bin|pt|pth|pkl|ckpt)$|(^|/)trainer_state\.json$|(^|/)checkpoint-\d+/")
#: Licences of data sets whose images may be published without asking.
OPEN_LICENCES = ("mit", "apache-2.0", "cc0", "cc0-1.0", "cc-by-4.0")
CHUNK = 1 << 20


def is_open_licence(licence: str | None) -> bool:
    """Whether images under this licence, as a data set names it, may be published: it is one of `OPEN_LICENCES`."""
    return (licence or "").lower().replace(" ", "-") in OPEN_LICENCES


def check_checkpoint(folder: Path) -> None:
    """Raise HFScoreError where the folder holds no checkpoint."""
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise HFScoreError(
            f"{folder} holds no checkpoint (config.json and safetensors): give a run that has finished."
        )


def refuse_secrets(operations: Sequence[CommitOperationAdd], token: str) -> None:
    """Raise when a file is private by its name, or holds a token or the path of a folder on this machine."""
    for operation in operations:
        name = operation.path_in_repo
        if UNWANTED.search(name):
            raise HFScoreError(
                f"{name} is a pickle or belongs to the training, and may hold a token: delete it where the model is."
            )
    tokens = re.compile(re.escape(token.encode()) + b"|" + TOKEN_PATTERN.encode())
    folders = _local_folders(operations)
    paths = re.compile(b"|".join(map(re.escape, folders))) if folders else None
    overlap = max([256, len(token), *map(len, folders)])
    for operation in operations:
        name, tail = operation.path_in_repo, b""
        with operation.as_file() as file:
            while chunk := file.read(CHUNK):
                window = tail + chunk
                if tokens.search(window):
                    raise HFScoreError(f"{name} holds an access token: take it out, and revoke the token.")
                if paths and (found := paths.search(window)):
                    raise HFScoreError(f"{name} holds the local path {found[0].decode()}: take it out.")
                tail = window[-overlap:]


def _local_folders(operations: Sequence[CommitOperationAdd]) -> list[bytes]:
    """Home, working folder and the folders that files come from, as text, JSON and addresses spell them."""
    sources = [operation.path_or_fileobj for operation in operations]
    folders = {Path(source).resolve().parent for source in sources if isinstance(source, str | Path)}
    # Folders right below the root are common to many machines, and their names to many texts.
    specific = {str(folder) for folder in {*folders, Path.cwd(), Path.home()} if len(folder.parts) > 2}
    specific |= {f"{Path.home()}/"} - {"//"}
    spelt = {way for folder in specific for way in (folder, json.dumps(folder)[1:-1], quote(folder))}
    return sorted(way.encode() for way in spelt)
