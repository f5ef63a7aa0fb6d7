"""Publishing on the Hugging Face Hub: one commit, and nothing in it that should stay at home.

`push_files` is the one way out; what publishes a model, a metric or a Space gives it the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from .errors import HFScoreError
from .metrics import worst_group_accuracy
from .report.card import PLACEHOLDER_OWNER, render_model_card
from .report.sanitise import TOKEN_PATTERN, sanitise

__all__ = ["check_checkpoint", "push_files", "push_metric", "push_run"]

#: Pickles, `training_args.bin` and its token among them, and what a training needs to go on: no part of a checkpoint.
UNWANTED = re.compile(r"\.(bin|pt|pth|pkl|ckpt)$|(^|/)trainer_state\.json$|(^|/)checkpoint-\d+/")
CHUNK = 1 << 20


def push_run(
    run_folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with hf-score",
) -> CommitInfo:
    """Upload a run's checkpoint with its card, its results and its report, in one commit.

    From `run_folder` go up: the files of `model/` (a stock checkpoint, processor and `README.md`; a card is made from
    the results where there is none, and told the repository's name), `results.json` without local paths, and
    `report/index.html`. The repository is made if it does not exist.

    Args:
        run_folder: what `run_score.py` or `hf-score train` wrote.
        repo_id: `owner/name`, or a name of your own.
        private: make a new repository private; default: as your organisation sets it.
        token: default: the one in the environment or of `hf auth login`.
        revision: branch; made from `main` if it does not exist.
        commit_message: the commit's title.

    Raises:
        HFScoreError: there is no such run, something in it must not be published (a token, `training_args.bin`),
            nobody is logged in, or the Hub cannot be reached or refuses.
    """
    return push_files(
        lambda name: _operations(Path(run_folder), name),
        repo_id,
        private=private,
        token=token,
        revision=revision,
        commit_message=commit_message,
    )


def push_metric(repo_id: str, *, private: bool | None = None, token: str | None = None) -> CommitInfo:
    """Publish worst-group accuracy as a Space, from which `evaluate.load(repo_id)` takes it.

    Args:
        repo_id: `owner/worst_group_accuracy`; `evaluate` looks for a script of the repository's name.
        private, token: as for [`push_run`].

    Raises:
        HFScoreError: another name, or what [`push_files`] raises.
    """
    folder = Path(worst_group_accuracy.__file__).parent
    if repo_id.split("/")[-1] != folder.name:
        raise HFScoreError(
            f"evaluate finds a metric by the name of its script: give OWNER/{folder.name} as --repo_id."
        )

    def operations(full_id: str) -> list[CommitOperationAdd]:
        content: dict[str, Path | bytes] = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
        readme = (folder / "README.md").read_text(encoding="utf-8")
        content["README.md"] = readme.replace(f"OWNER/{folder.name}", full_id).encode()
        return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=value) for name, value in content.items()]

    return push_files(
        operations,
        repo_id,
        private=private,
        token=token,
        commit_message="Upload metric with hf-score",
        repo_type="space",
        space_sdk="gradio",
    )


def push_files(
    make_operations: Callable[[str], list[CommitOperationAdd]],
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str,
    repo_type: str = "model",
    space_sdk: str | None = None,
) -> CommitInfo:
    """Upload files in one commit to a repository that is made if it does not exist; arguments as for `push_run`.

    Args:
        make_operations: from the full repository id to the files.
        repo_type: `"model"` or `"space"`.
        space_sdk: what a Space runs on.

    Raises:
        HFScoreError: a file must not be published, nobody is logged in, or the Hub cannot be reached or refuses.
    """
    token = token or get_token()
    if not token:
        raise HFScoreError("Nobody is logged in to the Hub: run `hf auth login` or set HF_TOKEN in the environment.")
    api = HfApi(token=token)
    try:
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
        operations = make_operations(repo_id)
        for operation in operations:
            _refuse_secrets(operation, token)
        api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type, space_sdk=space_sdk)
        if revision is not None and revision != "main":
            api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
        return api.create_commit(
            repo_id, operations, commit_message=commit_message, revision=revision, repo_type=repo_type
        )
    except HFScoreError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise HFScoreError(_reason(error, repo_id, api.endpoint)) from error


def _operations(run_folder: Path, repo_id: str) -> list[CommitOperationAdd]:
    model, results_file, page = run_folder / "model", run_folder / "results.json", run_folder / "report" / "index.html"
    if not run_folder.is_dir():
        raise HFScoreError(f"There is no run at {run_folder}: give the output folder of a finished run.")
    check_checkpoint(model)
    files: dict[str, Path | bytes] = {
        name: path
        for path in sorted(model.rglob("*"))
        if path.is_file() and not (name := path.relative_to(model).as_posix()).startswith(".")
    }
    if "README.md" in files:
        # The card was written before anybody knew where the model would go.
        card = (model / "README.md").read_text(encoding="utf-8")
        files["README.md"] = re.sub(rf'model="{PLACEHOLDER_OWNER}/[^"\n]*"', f'model="{repo_id}"', card).encode()
    if results_file.is_file():
        results = _read_results(results_file)
        files["results.json"] = json.dumps(sanitise(results), indent=2, ensure_ascii=False).encode()
        if "README.md" not in files:
            files["README.md"] = render_model_card(
                results, model_name=repo_id.split("/")[-1], repo_id=repo_id, base_model=results["model"]["name"]
            ).encode()
    if page.is_file():
        files["report/index.html"] = page
    return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]


def check_checkpoint(folder: Path) -> None:
    """Raise HFScoreError where the folder holds no checkpoint."""
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise HFScoreError(
            f"{folder} holds no checkpoint (config.json and safetensors): give a run that has finished."
        )


def _read_results(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HFScoreError(f"{path} is not JSON ({error}): write it again by repeating the evaluation.") from error


def _refuse_secrets(operation: CommitOperationAdd, token: str) -> None:
    """Raise when a file is private by its name, or holds the token in use or anything that looks like one."""
    name = operation.path_in_repo
    if UNWANTED.search(name):
        raise HFScoreError(
            f"{name} is a pickle or belongs to the training, and may hold a token: delete it from the model folder."
        )
    secret = re.compile(re.escape(token.encode()) + b"|" + TOKEN_PATTERN.encode())
    overlap = max(256, len(token))
    with operation.as_file() as file:
        tail = b""
        while chunk := file.read(CHUNK):
            if secret.search(tail + chunk):
                raise HFScoreError(f"{name} holds an access token: take it out, and revoke the token.")
            tail = (tail + chunk)[-overlap:]


def _reason(error: Exception, repo_id: str, endpoint: str) -> str:
    """One sentence for what the client raised: what failed, and what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_id} was not pushed because HF_HUB_OFFLINE is set: unset it and repeat the command."
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is not a repository id: give OWNER/NAME in letters, digits, '-', '_' and '.'."
    if isinstance(error, RepositoryNotFoundError) or (
        isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403)
    ):
        return (
            f"The Hub refused the token for {repo_id}: give one with write access to it (`hf auth login` or HF_TOKEN)."
        )
    if isinstance(error, HfHubHTTPError):
        reason = error.server_message or f"status {error.response.status_code}"
        return (
            f"The Hub did not accept {repo_id} ({_first_line(reason)}): repeat the command, or correct what it names."
        )
    if isinstance(error, HTTPError | ConnectionError):
        return f"{endpoint} cannot be reached ({_first_line(error)}): connect to the network and repeat the command."
    return f"{repo_id} was not pushed ({_first_line(error)}): correct it and repeat the command."


def _first_line(text: object) -> str:
    lines = str(text).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(text).__name__
