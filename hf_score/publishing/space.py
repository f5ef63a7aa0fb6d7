"""A Gradio Space from a finished run: the original and the debiased model side by side, with heatmaps of both.

The Space is a folder that stands alone. Its page is `templates/app.py`, copied as it is; what differs between Spaces
is in the `space.json` written beside it.
"""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import CommitInfo, CommitOperationAdd, SpaceCardData
from PIL import Image, ImageOps

from .. import __version__
from ..data import ImageData, load_data, to_rgb
from ..data.registry.specs import find_dataset
from ..detection import Candidates, Selection
from ..errors import HFScoreError
from ..files import atomic_folder, write_json, write_text
from ..hub_errors import HUB_ID
from ..models import own_class_names
from ..provenance import read_run
from ..report.card import TAGS
from ..report.conclusions import render_conclusions
from ..report.redact import redact
from ..report.schema import read_results
from ..report.templating import environment, plain, which_shortcuts
from .guard import check_checkpoint, is_open_licence
from .push import push_files

__all__ = ["make_space", "push_space", "render_readme", "render_requirements", "space_from_run"]

PACKAGE = Path(__file__).parents[1]
NUM_EXAMPLES = 8
#: Of pictures that the user gives, as many as a page can list.
MOST_OWN = 60
#: Of a patch that is not cut out of a picture.
PLACE = {"size": 0.2, "left": 0.25, "top": 0.25}
#: Options of a run that say what its data are.
DATA_OPTIONS = (
    *("data_dir", "label_column", "group_column", "class_names", "held_out", "test_share", "split_by", "config_name"),
    *("masks", "invert_masks", "value_range", "drop_minority", "strict"),
)


def space_from_run(
    run_folder: str | Path,
    *,
    repo_id: str | None = None,
    output_dir: str | Path | None = None,
    private: bool | None = None,
    model_id: str | None = None,
    **pictures: Any,
) -> CommitInfo | Path:
    """Make a run's Space in `output_dir`, or on the Hub, or both: `make_space`, then `push_space` where asked for.

    Args:
        run_folder, repo_id, output_dir, private, model_id: as for the two.
        pictures: `examples`, `patch`, `publish_images` and `license` of `make_space`.

    Returns:
        the commit, or the folder where nothing was pushed.

    Raises:
        HFScoreError: as the two, or neither place was given.
    """
    if repo_id is None:
        if output_dir is None:
            raise HFScoreError("A Space has to go somewhere: give --repo_id OWNER/NAME, --output_dir DIR, or both.")
        return make_space(run_folder, output_dir, model_id=model_id, **pictures)
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_space(run_folder, output_dir or Path(temporary) / "space", model_id=model_id, **pictures)
        return push_space(folder, repo_id, private=private)


def make_space(
    run_folder: str | Path,
    output_dir: str | Path,
    *,
    model_id: str | None = None,
    examples: Sequence[str | Path] = (),
    patch: str | Path | None = None,
    publish_images: bool | None = None,
    license: str | None = None,
) -> Path:
    """Write a run's Space to a folder, and return the folder. `python app.py` in it starts the page.

    Where images of the data set may be shown, test images and a patch cut out of a candidate that was kept as
    spurious-positive go in. Where not, visitors bring their own pictures and put in a square of a colour they choose.

    Args:
        run_folder: what `run_score.py` wrote.
        output_dir: where to; a Space that is there already is replaced.
        model_id: Hub id of the debiased model, if it was pushed; default: a copy goes into the folder.
        examples: pictures that may be shown, or folders of them, instead of those of the data set.
        patch: a picture of the shortcut that may be shown, transparent around it, instead of a cut-out.
        publish_images: show images of the data set; default: where it is a registered one whose licence allows it.
        license: what the Space's front matter names; default: none.

    Raises:
        HFScoreError: there is no finished run, a picture cannot be read, the folder holds something else, or gradio is
            not installed.
    """
    own = _own_pictures(examples), None if patch is None else open_picture(Path(patch))
    run_folder, output_dir = Path(run_folder), Path(output_dir)
    if output_dir.exists() and not (output_dir / "space.json").is_file() and any(output_dir.iterdir()):
        raise HFScoreError(f"{output_dir} holds something else than a Space: give a new or empty folder.")
    if model_id is not None and not HUB_ID.fullmatch(model_id):
        raise HFScoreError(f"{model_id!r} is not the id of a model on the Hub: give OWNER/NAME.")
    check_checkpoint(run_folder / "model")
    arguments = read_run(run_folder)
    # With several seeds, `model/` is the first one's.
    home = run_folder if (run_folder / "erm").is_dir() else run_folder / f"seed-{arguments['seed']}"
    check_checkpoint(home / "erm")
    dataset = arguments["dataset"]
    settings: dict[str, Any] = {
        "title": f"Shortcut or not: {redact(dataset)}",
        "original": "original",
        "debiased": model_id or "debiased",
        "patch": None,
        "examples": [],
        "credits": None,
        "verdict": _verdict(run_folder / "results.json"),
        "license": license,
    }
    with atomic_folder(output_dir) as folder:
        _copy_checkpoint(home / "erm", folder / "original")
        if model_id is None:
            _copy_checkpoint(run_folder / "model", folder / "debiased")
        benchmark = find_dataset(dataset)
        if publish_images is None:
            publish_images = benchmark is not None and is_open_licence(benchmark.licence)
        if publish_images and not (examples and patch):
            data = _data_of_run(arguments, home)
            settings["patch"] = _write_patch(folder / "patch.png", data, home)
            settings["examples"] = _write_examples(folder / "examples", data, settings["patch"])
            if benchmark is not None:
                settings["credits"] = f"{benchmark.description}. Licence: {benchmark.licence}."
                notice = Path(benchmark.path or "") / "README.md"
                if benchmark.path and notice.is_file():  # it holds the licence's notice
                    shutil.copy(notice, folder / "examples" / "README.md")
        _write_own(folder, settings, *own, label=_shortcut_class(home))
        bundled = "dev" in __version__  # such a version cannot be on the package index
        if bundled:
            unneeded = shutil.ignore_patterns("__pycache__", "*.parquet", ".*")
            shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=unneeded)
        shutil.copy(Path(__file__).parent / "templates" / "app.py", folder / "app.py")
        write_json(folder / "space.json", settings)
        write_text(folder / "README.md", render_readme(settings, bundled=bundled))
        write_text(folder / "requirements.txt", render_requirements(bundled=bundled))
    return output_dir


def push_space(
    folder: str | Path, repo_id: str, *, private: bool | None = None, token: str | None = None
) -> CommitInfo:
    """Upload a Space's folder in one commit. The repository is made if it does not exist.

    Args:
        folder: what `make_space` wrote, perhaps edited since.
        repo_id: `owner/name`, or a name of your own.
        private: make a new repository private; default: as your organisation sets it.
        token: default: the one in the environment or of `hf auth login`.

    Raises:
        HFScoreError: a file holds a token, nobody is logged in, or the Hub cannot be reached or refuses.
    """
    folder = Path(folder)
    operations = [
        CommitOperationAdd(path_in_repo=path.relative_to(folder).as_posix(), path_or_fileobj=path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return push_files(
        lambda _: operations,
        repo_id,
        private=private,
        token=token,
        commit_message="Upload Space with hf-score",
        repo_type="space",
        space_sdk="gradio",
    )


def render_readme(settings: Mapping[str, Any], *, bundled: bool) -> str:
    """The Space's `README.md`: front matter that tells the platform what to run, then a page for people.

    Args:
        settings: the content of `space.json`.
        bundled: the Space holds hf-score itself.

    Raises:
        HFScoreError: gradio, whose version the platform is told, is not installed.
    """
    sources = [settings["debiased"], settings["original"]]
    metadata = SpaceCardData(
        title=settings["title"],
        emoji="🔍",
        colorFrom="red",
        colorTo="blue",
        sdk="gradio",
        sdk_version=_gradio_version(),
        python_version="3.11",  # the platform's own default is too old
        app_file="app.py",
        license=settings.get("license"),
        models=[source for source in sources if "/" in source] or None,
        tags=[*TAGS, "image-classification", "explainability"],
        short_description="Put in the shortcut and see which model falls for it",
    )
    return (
        environment(autoescape=False, package=__name__)
        .get_template("README.md.jinja")
        .render(metadata=metadata.to_yaml(line_break="\n"), bundled=bundled, **settings)
    )


def render_requirements(*, bundled: bool) -> str:
    """The Space's `requirements.txt`: gradio as it is here, and hf-score or, where it is bundled, what that needs.

    A wheel in the Space would not do: the platform installs the requirements before it has the Space's other files.
    """
    needed = [f"hf-score=={__version__}"]
    if bundled:
        needed = _requirements()
    return "\n".join([f"gradio=={_gradio_version()}", *needed]) + "\n"


def _requirements() -> list[str]:
    """What hf-score needs, without its extras: of the installed package, or of the source tree it is run from."""
    try:
        return [requirement for requirement in requires("hf-score") or () if "extra ==" not in requirement]
    except PackageNotFoundError:
        try:
            tree = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
        except OSError:
            raise HFScoreError(
                f"What hf-score in {PACKAGE} needs is not known, for it is not installed: pip install it."
            ) from None
        return tree["project"]["dependencies"]


def _gradio_version() -> str:
    try:
        return version("gradio")
    except PackageNotFoundError:
        raise HFScoreError("A Space is made for the installed gradio: pip install 'hf-score[space]'.") from None


def open_picture(path: Path) -> Image.Image:
    """A picture file, turned as it says it is held, with nothing else that it says of itself.

    Raises:
        HFScoreError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image)
            return turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise HFScoreError(f"{path} cannot be read as a picture ({error}): give PNG or JPEG files.") from error


def _own_pictures(paths: Sequence[str | Path]) -> list[tuple[str, Image.Image]]:
    """Label and picture of each file, and of each file in each folder: in a class folder its name, else the file's."""
    found: list[tuple[str, Image.Image]] = []
    for given in map(Path, paths):
        files = [given]
        if given.is_dir():
            files = sorted(path for path in given.rglob("*") if path.suffix.lower() in Image.registered_extensions())
            if not files:
                raise HFScoreError(f"{given} holds no picture to show as an example: give PNG or JPEG files.")
        if len(found) + len(files) > MOST_OWN:
            raise HFScoreError(f"There are more than {MOST_OWN} pictures to show as examples: give fewer.")
        for file in files:
            inner = given.is_dir() and file.parent != given
            found.append((f"{file.parent.name} ({file.stem})" if inner else file.stem, open_picture(file)))
    return found


def _write_own(
    folder: Path,
    settings: dict[str, Any],
    examples: Sequence[tuple[str, Image.Image]],
    patch: Image.Image | None,
    *,
    label: str | None,
) -> None:
    """The pictures that the user gives take the place of the data set's."""
    if examples:
        shutil.rmtree(folder / "examples", ignore_errors=True)
        (folder / "examples").mkdir()
        settings["examples"] = []
        for number, (name, picture) in enumerate(examples):
            file = f"examples/{number}.png"  # a file's own name may say whose it is
            Image.fromarray(np.asarray(picture.convert("RGB"))).save(folder / file)
            settings["examples"].append({"file": file, "label": name})
    if patch is not None:
        Image.fromarray(np.asarray(patch.convert("RGBA"))).save(folder / "patch.png")
        place = {name: (settings["patch"] or PLACE)[name] for name in PLACE}
        settings["patch"] = {"file": "patch.png", "label": label, **place}
    if examples and (patch is not None or settings["patch"] is None):
        settings["credits"] = None  # nothing is left of the data set's


def _data_of_run(arguments: Mapping[str, Any], home: Path) -> ImageData:
    """The run's data set, split and named as it was there."""
    names = own_class_names(home / "erm")  # the run's label ids are its model's
    kept = {name: arguments[name] for name in DATA_OPTIONS if arguments.get(name) is not None}
    return load_data(arguments["dataset"], **kept, model_classes=names, verify=False)  # the run did


def _shortcut_class(home: Path) -> str | None:
    """The class of which most samples were kept; None where none was."""
    path = home / "selection.json"
    counts = Counter(d.label for d in Selection.load(path).spurious) if path.is_file() else Counter[int]()
    names = own_class_names(home / "erm") or ()
    label = counts.most_common(1)[0][0] if counts else None
    return names[label] if label is not None and label < len(names) else None


def _verdict(path: Path) -> str | None:
    """What the run shows, a paragraph for each conclusion; None without results."""
    if not path.is_file():
        return None
    results = redact(read_results(path))
    return "\n\n".join(part for part in (which_shortcuts(results), render_conclusions(results)) if part)


def _copy_checkpoint(source: Path, folder: Path) -> None:
    folder.mkdir()
    for path in [*source.glob("*.json"), *source.glob("*.safetensors")]:
        shutil.copyfile(path, folder / path.name)  # not its mode: safetensors writes files that others cannot read


def _write_examples(folder: Path, data: ImageData, patch: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Test images of all groups, or of all classes where there are no groups, spread evenly over the set.

    Those of the patch's own class come last: on the others it is easier to see what the patch does.
    """
    folder.mkdir()
    column, names = ("group", data.group_names) if data.group_names else ("label", data.class_names)
    members = np.asarray(data.test[column])
    examples: list[tuple[bool, dict[str, str]]] = []
    for number, name in enumerate(names):
        rows = np.flatnonzero(members == number)
        for count, place in enumerate(_evenly(rows, max(1, NUM_EXAMPLES // len(names))), start=1):
            row = data.test[int(place)]
            file = f"examples/{row['idx']}.png"
            to_rgb(row["image"]).save(folder.parent / file)
            own = patch is not None and data.class_names[row["label"]] == patch["label"]
            examples.append((own, {"file": file, "label": f"{name} ({count})"}))
    return [example for _, example in sorted(examples, key=lambda pair: pair[0])]


def _evenly(rows: np.ndarray, count: int) -> np.ndarray:
    """So many of the rows, or all where there are fewer, at equal distances and not at the ends."""
    return rows[(np.arange(0.5, count) * len(rows) / count).astype(int)] if len(rows) > count else rows


def _write_patch(file: Path, data: ImageData, home: Path) -> dict[str, Any] | None:
    """The spurious region of the candidate with the highest logit among those kept, or None where none was.

    The region is the data set's own where it has one, else what the mask of the candidate keeps.
    """
    candidates = Candidates.load(home / "candidates")
    kept = {decision.idx: decision.shortcut for decision in Selection.load(home / "selection.json").spurious}
    rows = [row for row, idx in enumerate(candidates.idx) if int(idx) in kept]
    if not rows or candidates.images is None:
        return None
    row = max(rows, key=lambda row: candidates.logits[row])
    idx = int(candidates.idx[row])
    region = data.regions("train")(idx)
    if region is not None:
        image = to_rgb(data.train[data.train["idx"][:].index(idx)]["image"])
        mask = np.asarray(region.convert("L")) > 127
    else:
        image, mask = to_rgb(candidates.images[row]), candidates.masks[row]
    image.putalpha(Image.fromarray(mask))
    inside_y, inside_x = np.nonzero(mask)
    left, right = int(inside_x.min()), int(inside_x.max()) + 1
    top, bottom = int(inside_y.min()), int(inside_y.max()) + 1
    image.crop((left, top, right, bottom)).save(file)
    return {
        "file": file.name,
        "name": plain(redact(kept[idx])),
        "label": data.class_names[int(candidates.labels[row])],
        "size": round(max(right - left, bottom - top) / min(image.size), 4),
        "left": round((left + right) / 2 / image.width, 4),
        "top": round((top + bottom) / 2 / image.height, 4),
    }
