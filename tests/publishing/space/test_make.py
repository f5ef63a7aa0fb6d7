"""The folder that is made of a run: what is in it, what is not, and its way to the Hub."""

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from environments import make_environment, needs_uv
from hub_server import HubServer
from huggingface_hub import SpaceCard, close_session, constants
from packaging.requirements import Requirement
from PIL import Image
from publishing.space.conftest import EXAMPLE, WITH_SQUARE, WITHOUT, made_candidates

import hf_score.publishing.space
from hf_score.cli import main
from hf_score.data import load_data
from hf_score.errors import HFScoreError
from hf_score.publishing.space import make_space, render_readme, render_requirements

pytest.importorskip("gradio")
TEMPLATES = Path(hf_score.publishing.space.__file__).parent / "templates"


def settings(folder):
    return json.loads((folder / "space.json").read_text())


def test_the_example_is_what_is_made_today():
    """Else: copy templates/app.py there, and write README.md with `render_readme(settings, bundled=False)`."""
    assert (EXAMPLE / "app.py").read_text() == (TEMPLATES / "app.py").read_text()
    readme = re.sub(r"sdk_version: .*", f"sdk_version: {version('gradio')}", (EXAMPLE / "README.md").read_text())
    assert readme == render_readme(settings(EXAMPLE), bundled=False)
    assert (
        (EXAMPLE / "requirements.txt")
        .read_text()
        .startswith(f"gradio=={SpaceCard.load(EXAMPLE / 'README.md').data.sdk_version}\n")
    )


def test_front_matter_and_requirements_agree_with_what_is_installed(make_run, tmp_path):
    folder = make_space(make_run([WITH_SQUARE]), tmp_path / "space")
    card = SpaceCard.load(folder / "README.md").data
    assert (card.sdk, card.sdk_version, card.app_file) == ("gradio", version("gradio"), "app.py")
    assert card.license is None and "hf-score" in card.tags and card.models is None
    assert len(card.to_dict()["short_description"]) <= 60  # the Hub refuses longer ones
    requirements = [Requirement(line) for line in (folder / "requirements.txt").read_text().splitlines()]
    assert {"gradio", "torch", "transformers", "timm", "zennit"} <= {one.name for one in requirements}
    assert all(one.specifier.contains(version(one.name), prereleases=True) for one in requirements)
    assert str(requirements[0]) == f"gradio=={card.sdk_version}"


def test_a_source_tree_that_is_not_installed_knows_what_it_needs(tmp_path, monkeypatch):
    (gradio,) = Path(sysconfig.get_path("purelib")).glob("gradio-*.dist-info")
    (tmp_path / gradio.name).symlink_to(gradio)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where gradio is installed, and hf-score is not
    tree = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text())
    needed = [f"gradio=={version('gradio')}", *tree["project"]["dependencies"]]
    assert render_requirements(bundled=True).splitlines() == needed
    monkeypatch.setattr(hf_score.publishing.space, "PACKAGE", tmp_path / "hf_score")
    with pytest.raises(HFScoreError, match="pip install it"):
        render_requirements(bundled=True)


def test_the_readme_says_what_the_run_shows_and_names_stay_text(make_run, tmp_path):
    run = make_run([WITH_SQUARE])
    assert "What the run shows" not in (make_space(run, tmp_path / "bare") / "README.md").read_text()
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 200}
    entry = {
        "figures": {"inserted": figure, "removed": figure},
        "classes": {},
        "samples": {"count": 9, "held_out": True},
    }
    after = {**entry, "change": {"lowest": {**figure, "low": 0.2, "high": 0.6}}, "class_change": {}}
    runs = [{"seed": 0, "metrics": {"accuracy": 0.5}, "verdict": verdict} for verdict in (entry, after)]
    methods = {"erm": {"runs": runs[:1]}, "score": {"runs": runs[1:]}}
    about = {"model": {"name": "m"}, "dataset": {"name": "d", "class_names": ["a", "b"]}}
    results = {**about, "selection": {"decided_by": "person"}, "methods": methods}
    results["methods"]["random_samples"] = {"label": "*x*", "runs": runs[1:]}
    (run / "results.json").write_text(json.dumps(results))
    readme = (make_space(run, tmp_path / "space") / "README.md").read_text()
    assert "Improved: the judged regions mislead the model less" in readme and r"“\*x\*”" in readme


@pytest.mark.parametrize("seeds", [False, True])
def test_models_examples_and_patch_come_from_the_run(make_run, tmp_path, seeds):
    run = make_run([WITH_SQUARE], seeds=seeds)
    folder = make_space(run, tmp_path / "space")
    about = settings(folder)
    for model in ("original", "debiased"):
        weights = (EXAMPLE / model / "model.safetensors").read_bytes()
        assert (folder / about[model] / "model.safetensors").read_bytes() == weights
    test = load_data("fashion_patch").test
    place = {idx: row for row, idx in enumerate(test["idx"][:])}
    groups = []
    for one in about["examples"]:
        row = test[place[int(Path(one["file"]).stem)]]
        assert (np.asarray(Image.open(folder / one["file"])) == np.asarray(row["image"].convert("RGB"))).all()
        groups.append(row["group"])
    assert sorted(groups) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert "Zalando" in (folder / "examples" / "README.md").read_text()  # the licence's notice
    patch = np.asarray(Image.open(folder / "patch.png"))
    assert patch.shape == (5, 5, 4) and (patch == (255, 40, 40, 255)).all()
    where = {"size": 0.1562, "left": 0.1719, "top": 0.1719}
    assert about["patch"] == {"file": "patch.png", "name": "", "label": "pullover", **where}


def test_where_the_data_set_knows_no_region_the_mask_cuts_out_the_patch(make_run, tmp_path):
    folder = make_space(make_run([WITHOUT], shortcut="a *red* corner"), tmp_path / "space")
    image = np.asarray(made_candidates().images[1])
    patch = np.asarray(Image.open(folder / "patch.png"))
    assert (patch[..., :3] == image[10:16, 20:24]).all() and (patch[..., 3] == 255).all()
    about = settings(folder)["patch"]
    where = {"size": 0.1875, "left": 0.6875, "top": 0.4062}
    assert about == {"file": "patch.png", "name": r"a \*red\* corner", "label": "shirt", **where}


@pytest.mark.parametrize("dataset", ["waterbirds", "/home/ann/secret/birds"])
def test_images_without_a_licence_to_show_them_stay_at_home(make_run, tmp_path, dataset):
    folder = make_space(make_run([WITH_SQUARE], dataset=dataset), tmp_path / "space", model_id="me/debiased")
    about = settings(folder)
    assert about["patch"] is None and about["examples"] == [] and about["credits"] is None
    assert not [path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".parquet", ".arrow")]
    own = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and "hf_score" not in path.parts]
    assert not any(b"/home/ann" in content or str(tmp_path).encode() in content for content in own)
    assert about["debiased"] == "me/debiased" and not (folder / "debiased").exists()
    assert SpaceCard.load(folder / "README.md").data.models == ["me/debiased"]


def test_own_pictures_take_the_place_of_private_ones(make_run, tmp_path, capsys):
    """Nothing of the data set goes in, and nothing that the given files say of themselves."""
    run = make_run([WITH_SQUARE], dataset="/home/ann/secret/birds")
    exif = Image.Exif()
    exif[0x010E] = "Ann's phone"
    shown = Image.new("RGB", (40, 30), "green")
    (tmp_path / "mine" / "gull").mkdir(parents=True)
    shown.save(tmp_path / "mine" / "gull" / "7.jpg", exif=exif)
    shown.save(tmp_path / "alone.png")
    sticker = Image.new("RGBA", (8, 4), (9, 8, 7, 128))
    sticker.save(tmp_path / "sticker.png")
    words = ["space", str(run), "--output_dir", str(tmp_path / "space"), "--license", "mit"]
    words += ["--patch", str(tmp_path / "sticker.png"), "--examples", str(tmp_path / "mine")]
    assert main([*words, str(tmp_path / "alone.png")]) == 0
    folder = tmp_path / "space"
    about = settings(folder)
    assert [one["label"] for one in about["examples"]] == ["gull (7)", "alone"] and about["credits"] is None
    assert about["patch"] == {"file": "patch.png", "label": "pullover", "size": 0.2, "left": 0.25, "top": 0.25}
    assert (np.asarray(Image.open(folder / "patch.png")) == np.asarray(sticker)).all()
    assert b"phone" not in (folder / about["examples"][0]["file"]).read_bytes()
    pictures = [path for path in folder.rglob("*.png") if "hf_score" not in path.parts]
    assert len(pictures) == 3 and SpaceCard.load(folder / "README.md").data.license == "mit"
    capsys.readouterr()
    (tmp_path / "mine" / "gull" / "8.png").write_text("no picture")
    before = (folder / "space.json").read_bytes()
    assert main(words) == 2 and "8.png cannot be read as a picture" in capsys.readouterr().err
    assert (folder / "space.json").read_bytes() == before


def test_images_of_private_data_are_shown_if_asked_for_and_of_open_data_not_if_not(make_run, tmp_path):
    birds = tmp_path / "birds"
    for split, count in (("train", 8), ("test", 4)):
        for name in ("pullover", "shirt"):
            (birds / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (32, 32), (20 * i, len(name), count)).save(birds / split / name / f"{i}.png")
    run = make_run([WITHOUT], dataset=str(birds))
    folder = make_space(run, tmp_path / "space", publish_images=True)
    about = settings(folder)
    assert len(about["examples"]) == 8 and about["patch"]["label"] == "shirt" and about["credits"] is None
    (run / "run.json").write_text((run / "run.json").read_text().replace(str(birds), "fashion_patch"))
    about = settings(make_space(run, tmp_path / "space", publish_images=False))
    assert about["examples"] == [] and about["patch"] is None


def test_it_brings_the_whole_package_but_no_data(make_run, tmp_path):
    folder = make_space(make_run(dataset="birds"), tmp_path / "space")
    package = TEMPLATES.parents[1]
    parts = {p.relative_to(package) for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    brought = {p.relative_to(folder / "hf_score") for p in (folder / "hf_score").rglob("*") if p.is_file()}
    assert brought == {part for part in parts if part.suffix != ".parquet"}


@pytest.mark.slow  # an environment with its own PyTorch: 6 GB, linked where uv has it in its cache
@needs_uv
def test_it_starts_as_the_platform_starts_it(make_run, tmp_path):
    """`pip install -r requirements.txt` in an empty environment, then `python app.py`."""
    folder = make_space(make_run([WITH_SQUARE]), tmp_path / "space")
    python = make_environment(tmp_path / "empty", "-r", "requirements.txt", cwd=folder)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1"}
    server = subprocess.Popen([python, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stdout)))
        with urllib.request.urlopen(f"{found[0]}/config", timeout=60) as answer:
            page = answer.read().decode()
    finally:
        server.terminate()
        server.wait()
    assert "Shortcut or not: fashion_patch" in page
    assert "Heatmaps are off" not in page  # hf-score, which the Space brings, explains


def test_refusals_leave_everything_as_it_was(make_run, tmp_path, capsys):
    run = make_run([WITH_SQUARE])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(HFScoreError, match="holds something else than a Space"):
        make_space(run, mine)
    assert (mine / "thesis.tex").read_text() == "years of work"
    with pytest.raises(HFScoreError, match="is not the id of a model"):
        make_space(run, tmp_path / "space", model_id="not an id")
    assert main(["space", str(run)]) == 2
    assert "give --repo_id OWNER/NAME, --output_dir DIR, or both" in capsys.readouterr().err
    (run / "erm" / "model.safetensors").unlink()
    assert main(["space", str(run), "--output_dir", str(tmp_path / "space")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "runs"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A loopback Hub that this process's client talks to; the client has read its settings when it was imported."""
    with HubServer(tmp_path / "hub") as hub:
        for name, value in (hub.variables() | {"HF_TOKEN": hub.token}).items():
            monkeypatch.setenv(name, value)
        for name, value in {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            monkeypatch.setattr(constants, name, value)
        close_session()
        yield hub
    close_session()


def test_pushed_to_the_hub_in_one_commit(make_run, tmp_path, hub, capsys, monkeypatch):
    words = ["space", str(make_run([WITH_SQUARE])), "--repo_id", "tester/both", "--private"]
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_wrong")
        assert main(words) == 2
    assert "The Hub refused the token for tester/both" in capsys.readouterr().err
    assert not hub.repos
    assert main([*words, "--output_dir", str(tmp_path / "space")]) == 0
    assert capsys.readouterr().out.startswith(f"{hub.url}/spaces/tester/both/commit/")
    assert hub.repos["space", "tester/both"].private
    assert hub.commits("tester/both", repo_type="space") == ["initial commit", "Upload Space with hf-score"]
    files = hub.files("tester/both", repo_type="space")
    here = {p.relative_to(tmp_path / "space").as_posix(): p for p in (tmp_path / "space").rglob("*") if p.is_file()}
    assert files == {name: path.read_bytes() for name, path in here.items()}
    assert not any(hub.token.encode() in content or str(tmp_path).encode() in content for content in files.values())
    SpaceCard(files["README.md"].decode()).validate(repo_type="space")
