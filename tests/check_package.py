"""`make package-check`: what a user has who installs the wheel into an empty environment, and nothing else.

Not a part of the test suite: it installs every dependency once more. `python tests/check_package.py DIST` takes the
sdist and the wheel that `uv build` has made from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARD_TEMPLATE = "hf_score/report/templates/model_card.md.jinja"  # from model_cards/
NEEDED = {
    "hf_score/py.typed",
    CARD_TEMPLATE,
    "hf_score/report/templates/report.html.jinja",
    "hf_score/report/templates/style.css",
    "hf_score/report/templates/audit.html.jinja",
    "hf_score/review/templates/export.html.jinja",
    "hf_score/review/templates/served.html.jinja",
    "hf_score/publishing/templates/app.py",
    "hf_score/publishing/templates/README.md.jinja",
    "hf_score/data/registry/fashion_patch/train.parquet",
    "hf_score/evaluation/worst_group_accuracy/README.md",
}
IN_SDIST = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    CARD_TEMPLATE.replace("hf_score/report/templates", "model_cards"),
}
#: Run by the environment's own Python: all public names are there, and one image is explained.
IMPORTS = """
import importlib, pkgutil, sys
import hf_score
assert hf_score.__file__.startswith(sys.prefix), hf_score.__file__
found = ["hf_score", *(module.name for module in pkgutil.iter_modules(hf_score.__path__, "hf_score."))]
for name in found:
    module = importlib.import_module(name)
    for public in module.__all__:
        getattr(module, public)
from hf_score import Explainer, load_data, load_model
from hf_score.data import preprocess
data = load_data("fashion_patch", num_train=64)
model, processor, _ = load_model("test_resnet", class_names=data.class_names, image_size=32, from_scratch=True)
with Explainer(model) as explainer:
    relevance = explainer.explain(preprocess(data.test, processor)[0]["pixel_values"][None], 0).relevance
assert relevance.shape == (1, 32, 32) and relevance.abs().sum() > 0, relevance
print(len(found), "modules imported, one image explained")
"""
RUN = [
    *("--model", "test_resnet", "--from_scratch", "--image_size", "32", "--dataset", "fashion_patch", "--use_cpu"),
    *("--erm_epochs", "3", "--erm_learning_rate", "2e-3", "--max_steps", "3", "--per_device_train_batch_size", "32"),
    *("--mask_area", "0.1", "--num_candidates", "20", "--disable_tqdm", "true", "--output_dir", "run"),
]


def check_contents(sdist: Path, wheel: Path) -> None:
    """The wheel is the package of this checkout, file by file, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hf_score").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == here | {CARD_TEMPLATE}, (
        f"too much or too little in {wheel.name}: {packed ^ (here | {CARD_TEMPLATE})}"
    )
    assert packed >= NEEDED, f"not in {wheel.name}: {NEEDED - packed}"
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert packed >= IN_SDIST, f"not in {sdist.name}: {IN_SDIST - packed}"


def check_installed(wheel: Path, work: Path) -> None:
    """In an empty environment, in a folder that is not the checkout, offline: imports, commands and a whole run."""
    bin_folder = work / "venv" / "bin"
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    outside |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "home"), "PYTHONNOUSERSITE": "1"}

    def call(*command: object, status: int = 0) -> str:
        print("$", *[str(word) for word in command if word is not IMPORTS], flush=True)
        done = subprocess.run(
            [str(w) for w in command], cwd=work, env=outside, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    call(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, work / "venv")
    install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", bin_folder / "python")
    call(*install, wheel)
    call(sys.executable, "-m", "uv", "pip", "check", "--quiet", "--python", bin_folder / "python")
    print(call(bin_folder / "python", "-c", IMPORTS), end="")
    assert "usage: hf-score [-h]" in call(bin_folder / "hf-score", "--help")
    call(bin_folder / "hf-score", "families")
    assert "worst group" in call(bin_folder / "hf-score", "run", *RUN)
    call(bin_folder / "hf-score", "review", "run", "--export", "review.html")
    needs = "pip install 'hf-score[{}]'"
    space = (bin_folder / "hf-score", "space", "run", "--output_dir", "space")
    assert needs.format("space") in call(*space, status=2)
    review = (bin_folder / "hf-score", "review", "run", "--no_browser", "--port", "0")
    assert needs.format("review") in call(*review, status=2)
    call(*install, f"hf-score[review,space] @ {wheel.as_uri()}")
    call(*space)
    made = ["run/model/README.md", "run/report/index.html", "review.html", "space/app.py", "space/README.md"]
    assert all((work / name).is_file() for name in made), made


def main(dist: Path) -> None:
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    check_contents(sdist, wheel)
    with tempfile.TemporaryDirectory() as work:
        check_installed(wheel.resolve(), Path(work).resolve())
    print(f"{wheel.name}: fine")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
