"""What `mkdocs build --strict` and GitHub would follow: links, pictures, anchors, the navigation, the reference."""

import importlib
import pkgutil
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from documents import PAGES, ROOT

import hf_score
from hf_score.cli import make_parser
from hf_score.publishing.guard import OPEN_LICENCES, is_open_licence

#: Top-level modules that nobody outside is meant to import.
INTERNAL = {
    "__main__": "`python -m hf_score`",
    "cli": "the command line",
    "files": "writing files",
    "provenance": "what results say of the machine",
    "renamed": "old names that still work",
    "hub_errors": "sentences for what goes wrong on the Hub",
}
_LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it (ASCII alone)."""
    ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, those given by hand, and those of a page that it includes."""
    text = page.read_text(encoding="utf-8")
    for included in re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE):
        text += (ROOT / included).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+?)(?: \{ #(\S+) \})?$", text, re.MULTILINE)
    return {own or slug(heading) for heading, own in headings}


def links(page: Path) -> list[str]:
    return _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_pictures_and_anchors_lead_somewhere(page):
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{link} is not there"
        assert target.is_relative_to(ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT), link
        if anchor:
            assert target.suffix == ".md" and anchor in anchors(target), f"{link} has no such heading"


def navigation(entries: list) -> list[str]:
    found: list[str] = []
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += navigation(value) if isinstance(value, list) else [value]
    return found


def test_every_page_is_in_the_navigation_once():
    docs = ROOT / "docs"
    pages = [p.relative_to(docs).as_posix() for p in docs.rglob("*") if p.suffix in (".md", ".ipynb")]
    listed = navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(pages)


def test_a_page_lies_in_the_folder_of_its_part():
    for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]:
        for part, pages in entry.items():
            if isinstance(pages, list):
                assert {page.partition("/")[0] for page in navigation(pages)} == {slug(part)}, part
            else:
                assert pages == "index.md"  # home


def test_every_room_has_a_page_of_its_own_and_its_names_exist():
    folder = ROOT / "docs" / "reference"
    overview = (folder / "index.md").read_text(encoding="utf-8")
    rooms = {module.name for module in pkgutil.iter_modules(hf_score.__path__)} - INTERNAL.keys()
    shown = {
        page.stem: re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        for page in folder.glob("*.md")
    }
    assert {page: names for page, names in shown.items() if names} == {room: [f"hf_score.{room}"] for room in rooms}
    for room in rooms:
        module = importlib.import_module(f"hf_score.{room}")
        assert module.__all__ and all(hasattr(module, public) for public in module.__all__), room
        assert f"[`hf_score.{room}`]({room}.md)" in overview, f"{room} is not in the table of docs/reference/index.md"
        assert (folder / f"{room}.md").read_text(encoding="utf-8").startswith(f"# {room.capitalize()}\n")
    for name in hf_score.__all__:
        assert f"`{name}`][hf_score." in overview, f"hf_score.{name} is not in docs/reference/index.md"


def test_every_step_has_a_section_on_the_page_of_the_command_line():
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    sections = {word for title in re.findall(r"^## ([a-z].*)$", page, re.MULTILINE) for word in title.split(", ")}
    steps = set(make_parser().step_names)  # type: ignore[attr-defined]
    assert sections == steps - {"benchmarks"}  # the old name of datasets


def test_the_map_of_rooms_is_complete_and_leads_somewhere():
    (section,) = re.findall(r"^## Rooms\n(.*?)^## ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`]+)`", section)
    rooms = {module.name for module in pkgutil.iter_modules(hf_score.__path__)} - {"__main__"}
    assert rooms <= {span.rstrip("/") for span in spans}
    for span in spans:
        if "/" in span and span != "hf_score/":
            assert (ROOT / "hf_score" / span).exists() or (ROOT / span).exists(), span


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


def test_the_page_on_publishing_names_the_licences_that_let_images_out():
    page = (ROOT / "docs" / "how-to" / "publish-a-model.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"licence of the data set that allows it \(([^)]+)\)", page)
    named = re.split(r",\s+", named)
    assert all(is_open_licence(licence) for licence in named)
    assert {name.removesuffix("-1.0") for name in OPEN_LICENCES} == {n.lower().replace(" ", "-") for n in named}


def test_every_public_class_and_function_says_what_it_does():
    """The reference shows nothing without a docstring (`show_if_no_docstring: false`)."""
    for module in pkgutil.iter_modules(hf_score.__path__, "hf_score."):
        if module.name.partition(".")[2] in INTERNAL:
            continue
        home = importlib.import_module(module.name)
        for name in home.__all__:
            public = getattr(home, name)
            if callable(public) and getattr(public, "__module__", "").startswith("hf_score"):
                assert public.__doc__, f"{module.name}.{name}"


def test_workflows_run_what_the_project_runs():
    """The job `test` is `.ci/run`: README's test command in a clean clone."""
    (path,) = (ROOT / ".github" / "workflows").glob("*.yml")
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands == {"test": ["bash .ci/run"], "docs": ["make docs"], "package": ["make package-check"]}
    (last,) = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("env ")]
    assert last.endswith(" make test")
    assert re.search(r"^make test\b", (ROOT / "README.md").read_text(), re.MULTILINE)


def test_the_versions_of_package_citation_and_changelog_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "version", "license"} <= citation.keys()
    assert citation["version"] == hf_score.__version__
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{hf_score.__version__}"' in project
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = not hf_score.__version__.partition(".dev")[1]
    assert f"## [{hf_score.__version__}]" in changelog if released else "## [Unreleased]" in changelog
