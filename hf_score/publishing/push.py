"""Publishing on the Hugging Face Hub: one commit, and nothing in it that should stay at home.

`push_files` is the one way out; what publishes a model, a metric or a Space gives it the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard, get_token

from ..errors import HFScoreError
from ..evaluation import worst_group_accuracy
from ..files import atomic_folder, write_bytes, write_text
from ..hub_errors import hub_errors
from ..models import checkpoint_digest
from ..report import render_report
from ..report.card import PICTURES_MARK, PLACEHOLDER_OWNER, eval_results_yaml, picture_markdown, render_model_card
from ..report.redact import redact
from ..report.schema import read_results
from .guard import check_checkpoint, is_open_licence, refuse_secrets

__all__ = [
    "push_checkpoint",
    "push_files",
    "push_metric",
    "push_run",
    "write_card",
]

#: What a checkpoint and its processor consist of, beside the card.
CHECKPOINT_PART = re.compile(r"(?!trainer_state|.*_results)[\w.-]+\.json|[\w.-]+\.safetensors|README\.md")
#: The results as they are published.
REPORT = "score_report.json"


def push_run(
    run_folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with hf-score",
    license: str | None = None,
    publish_images: bool | None = None,
) -> CommitInfo:
    """Upload a run's checkpoint with its card, its results and its report, in one commit.

    From `run_folder` go up: the files of `model/` (a stock checkpoint, processor and `README.md`; a card is made from
    the results where there is none, and told the repository's name); the results without local paths, as
    `score_report.json` and, for a data set on the Hub, in `.eval_results/`; the report; and, where images may be
    published, the card's pictures in `assets/`. The repository is made if it does not exist.

    Args:
        run_folder: what `run_score.py` or `hf-score run` wrote.
        repo_id: `owner/name`, or a name of your own.
        private: make a new repository private; default: as your organisation sets it.
        token: default: the one in the environment or of `hf auth login`.
        revision: branch; made from `main` if it does not exist.
        commit_message: the commit's title.
        license: the checkpoint's licence, as the Hub spells it (`"apache-2.0"`), for the card's metadata.
        publish_images: publish images of the data set, in the card and the report. Default: where the results name a
            licence that allows it (`OPEN_LICENCES`).

    Raises:
        HFScoreError: there is no such run, something in it must not be published (a token, a local path,
            `training_args.bin`), nobody is logged in, or the Hub cannot be reached or refuses.
    """
    return push_files(
        lambda name: _run_operations(Path(run_folder), name, license, publish_images),
        repo_id,
        private=private,
        token=token,
        revision=revision,
        commit_message=commit_message,
    )


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    results: Mapping[str, Any],
    *,
    method: str,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with hf-score",
) -> CommitInfo:
    """Upload a checkpoint from among the other files of a training, with its card and results, in one commit.

    Args:
        folder: a trainer's output folder. What lies at its top and is part of a checkpoint goes up, with `README.md`.
        results: in the form of `results.json`.
        method: key of the method that made this checkpoint.
        repo_id, private, token, revision, commit_message: as for [`push_run`].

    Raises:
        HFScoreError: as [`push_run`] does.
    """
    folder = Path(folder)
    parts = {
        path.name: path for path in sorted(folder.iterdir()) if path.is_file() and CHECKPOINT_PART.fullmatch(path.name)
    }
    return push_files(
        lambda name: _operations({**parts, **_metadata_files(parts, results, name, method=method)}),
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
        return _operations(content)

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
    with hub_errors(repo_id):
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
    with hub_errors(repo_id):
        operations = make_operations(repo_id)
        refuse_secrets(operations, token)
        api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type, space_sdk=space_sdk)
        if revision is not None and revision != "main":
            api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
        return api.create_commit(
            repo_id, operations, commit_message=commit_message, revision=revision, repo_type=repo_type
        )


def write_card(
    run_folder: str | Path,
    output_dir: str | Path,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    publish_images: bool | None = None,
) -> Path:
    """Write the page that a run's model gets on the Hub to a folder, without the model, and return the folder.

    The card is made from the results, whether or not `model/` has one: `README.md`, its pictures in `assets/`, and
    `score_report.json`.

    Args:
        run_folder: as for [`push_run`].
        output_dir: where to; its name is the model's. A card that is there already is replaced.
        repo_id: where the model is or will be; default: a placeholder.
        license, publish_images: as for [`push_run`].

    Raises:
        HFScoreError: there are no results, or the folder holds something else than a card.
    """
    run_folder, output_dir = Path(run_folder), Path(output_dir).resolve()
    if output_dir.exists() and {path.name for path in output_dir.iterdir()} - {"README.md", REPORT, "assets"}:
        raise HFScoreError(f"{output_dir} holds something else than a card: give a new or empty folder.")
    results = read_results(run_folder / "results.json")
    assets = _assets(run_folder, results, publish_images)
    card = render_model_card(results, model_name=output_dir.name, license=license)
    repo_id = repo_id or f"{PLACEHOLDER_OWNER}/{output_dir.name}"
    with atomic_folder(output_dir) as folder:
        write_text(folder / "README.md", _finish_card(card, repo_id, None, _captions(assets)))
        write_text(folder / REPORT, _report(results))
        for name, (content, _) in assets.items():
            write_bytes(folder / name, content)
    return output_dir


def _run_operations(
    run_folder: Path, repo_id: str, license: str | None, publish_images: bool | None
) -> list[CommitOperationAdd]:
    if not run_folder.is_dir():
        raise HFScoreError(f"There is no run at {run_folder}: give the output folder of a finished run.")
    model, results_file, page = run_folder / "model", run_folder / "results.json", run_folder / "report" / "index.html"
    check_checkpoint(model)
    files: dict[str, Path | bytes] = {
        name: path
        for path in sorted(model.rglob("*"))
        if path.is_file() and not (name := path.relative_to(model).as_posix()).startswith(".")
    }
    results = read_results(results_file) if results_file.is_file() else None
    _check_measured(model, results)
    assets = _assets(run_folder, results, publish_images)
    files |= {name: content for name, (content, _) in assets.items()}
    if page.is_file() and results is not None:
        # Contact sheets and heatmaps show images; bars and curves are drawn from the results.
        with_images = _may_publish(results, publish_images)
        files["report/index.html"] = page if with_images else render_report(results, {}).encode()
    made = _metadata_files(files, results, repo_id, license=license, pictures=_captions(assets))
    return _operations({**files, **made})


def _metadata_files(
    files: Mapping[str, Path | bytes],
    results: Mapping[str, Any] | None,
    repo_id: str,
    *,
    method: str = "score",
    license: str | None = None,
    pictures: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """The card, and the results as people, programs and the Hub read them."""
    made: dict[str, bytes] = {}
    card = None
    if "README.md" in files:
        card = Path(files["README.md"]).read_text(encoding="utf-8")  # type: ignore[arg-type]
    elif results is not None:
        card = render_model_card(results, model_name=repo_id.split("/")[-1], method=method)
    if card is not None:
        made["README.md"] = _finish_card(card, repo_id, license, pictures or {}).encode()
    if results is not None:
        made[REPORT] = _report(results).encode()
        hub_form = eval_results_yaml(results, method=method)
        if hub_form is not None:
            made[".eval_results/hf-score.yaml"] = hub_form.encode()
    return made


def _finish_card(card: str, repo_id: str, license: str | None, pictures: Mapping[str, str]) -> str:
    """Put in what was not known when the card was written: where the model goes, its licence, its pictures."""
    card = re.sub(rf'(model="|hf-hub:){PLACEHOLDER_OWNER}/[^"\n]*"', rf'\g<1>{repo_id}"', card)
    card = card.replace(
        PICTURES_MARK, picture_markdown(pictures) or "*Images of the data set are not published here.*"
    )
    if license is not None:
        parsed = ModelCard(card)
        parsed.data["license"] = license
        card = str(parsed)
    return card


def _report(results: Mapping[str, Any]) -> str:
    return json.dumps(redact(results), indent=2, ensure_ascii=False) + "\n"


def _may_publish(results: Mapping[str, Any] | None, wanted: bool | None) -> bool:
    """Whether images of the data set may go out: as the user says, else as its licence does."""
    return is_open_licence((results or {}).get("dataset", {}).get("licence")) if wanted is None else wanted


def _assets(
    run_folder: Path, results: Mapping[str, Any] | None, publish_images: bool | None
) -> dict[str, tuple[bytes, str]]:
    """Path → PNG and caption of the card's pictures. With several seeds the checkpoint is the first one's."""
    if not _may_publish(results, publish_images):
        return {}
    from ..report.figures import png_bytes
    from .card_pictures import card_pictures  # reads candidates, for which torch is loaded

    seeds = (results or {}).get("seeds") or [0]
    folder = run_folder if (run_folder / "candidates").is_dir() else run_folder / f"seed-{seeds[0]}"
    return {
        f"assets/{name}": (png_bytes(picture), caption) for name, (picture, caption) in card_pictures(folder).items()
    }


def _captions(assets: Mapping[str, tuple[bytes, str]]) -> dict[str, str]:
    return {name: caption for name, (_, caption) in assets.items()}


def _operations(files: Mapping[str, Path | bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]


def _check_measured(model: Path, results: Mapping[str, Any] | None) -> None:
    """Raise HFScoreError where the results are of another checkpoint; those that do not say of which pass."""
    runs = ((results or {}).get("methods") or {}).get("score", {}).get("runs") or [{}]
    recorded = runs[0].get("weights_sha256")
    if recorded is not None and recorded != checkpoint_digest(model):
        raise HFScoreError(
            f"the figures in {model.parent / 'results.json'} are of another model than the one in {model}: run "
            f"'hf-score run --resume {model.parent}', and push again."
        )
