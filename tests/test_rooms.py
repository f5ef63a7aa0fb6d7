"""The house: imports between the rooms of hf_score go downwards and in no circle, and nothing in it is too long."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import hf_score

ROOT = Path(hf_score.__file__).parent
#: Lowest first: a room imports from those before it. The package's own `__init__` (version, lazy names) is no room.
ROOMS = (
    *("errors", "files", "renamed", "hub_errors", "margins", "provenance", "data.registry", "data", "models"),
    *("attribution", "detection", "evaluation", "report", "publishing", "training", "baselines", "review"),
    *("pipeline", "audit", "bench", "cli", "__main__"),
)
MOST_LOOSE_MODULES = 9
LONGEST = {ast.ClassDef: 300, ast.FunctionDef: 80, ast.AsyncFunctionDef: 80}
#: Begins the sentence of a docstring that says why something is longer.
REASON = "Long because"

MODULES = {
    ".".join(("hf_score", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "templates" not in path.relative_to(ROOT).parts
}


def room_of(module: str) -> str:
    """`hf_score.data.registry.specs` lies in `data.registry`, `hf_score.data.loading` in `data`."""
    inside = module.removeprefix("hf_score.")
    return max((room for room in ROOMS if f"{inside}.".startswith(f"{room}.")), key=len, default=inside)


def imports_of(module: str, source: str, *, is_package: bool, modules: frozenset[str]) -> set[str]:
    """Modules of the package that `source` imports, in functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: None if is_package else -1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base)
    return found & modules - {module}


GRAPH = {
    name: imports_of(
        name,
        path.read_text(encoding="utf-8"),
        is_package=path.name == "__init__.py",
        modules=frozenset(MODULES),
    )
    - {"hf_score"}
    for name, path in MODULES.items()
    if name != "hf_score"
}
EDGES = {(module, other) for module, others in GRAPH.items() for other in others}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """The nodes of a circle, from one of them back to it; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_every_module_lies_in_a_room():
    assert {room_of(module) for module in GRAPH} <= set(ROOMS)
    assert len(list(ROOT.glob("[!_]*.py"))) <= MOST_LOOSE_MODULES


def test_imports_go_downwards():
    height = {room: place for place, room in enumerate(ROOMS)}
    climbing = [(module, other) for module, other in EDGES if height[room_of(other)] > height[room_of(module)]]
    assert not climbing


def test_no_circle_between_modules():
    assert circle_in(GRAPH) == []


def test_no_circle_between_rooms():
    rooms: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, other in EDGES:
        rooms[room_of(module)] |= {room_of(other)} - {room_of(module)}
    assert circle_in(rooms) == []


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_too_long(module):
    too_long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if (limit := LONGEST.get(type(node))) and node.end_lineno - node.lineno + 1 > limit
        if REASON not in (ast.get_docstring(node) or "")
    ]
    assert not too_long


@pytest.mark.parametrize(
    ("line", "imported"),
    [
        ("import hf_score.files", "hf_score.files"),
        ("from hf_score import files", "hf_score.files"),
        ("from ..files import write_json", "hf_score.files"),
        ("from .. import files", "hf_score.files"),
        ("from .scan import scan", "hf_score.detection.scan"),
        ("from . import scan", "hf_score.detection.scan"),
        ("def late():\n    from ..report import overlay", "hf_score.report"),
        ("if TYPE_CHECKING:\n    from ..cli import main", "hf_score.cli"),
    ],
)
def test_every_form_of_import_is_seen(line, imported):
    found = imports_of("hf_score.detection.decide", line, is_package=False, modules=frozenset(MODULES))
    assert found == {imported}


def test_a_circle_is_found():
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
