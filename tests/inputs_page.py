"""The page *Inputs* of the docs, made from the lists that the tests walk: `python tests/inputs_page.py` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from data.inputs import INPUTS, READ
from data.layouts import LAYOUTS
from model_inputs import MODEL_INPUTS
from training.python_inputs import PYTHON_INPUTS

__all__ = ["page"]

HEAD = """# Inputs

What happens to what people bring. Every row is one case of a test, which holds the values that come out against a
derivation of its own, or the sentence that refuses: an input is right, or refused before anything is computed. Made by
`python tests/inputs_page.py` from the lists that the tests walk.
"""
EXPLAINED = {
    "Layouts": """Folders, tables and objects that `load_data` and `--dataset` take. *Read*: every picture has the
class that it shows.""",
    "Image files": """*Read*: the pixels are those of the same picture in 8 bits. *Skipped and counted*: left out of
the training split, and said; in other splits an error.
`value_range` is an option of `load_data` and `hf-score run`.""",
    "Training sets in Python": """What `SCORETrainer` and `BaseTrainer` take as `train_dataset`, for a model with the
classes plain and square. *Read*: every picture reaches the loss with the label it was made with.
`max_steps` and `class_balanced` are fields of the configuration.""",
    "Models": "What `load_model` and `--model` take. *Read*: its outputs are those of the model as it came.",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _outcome(expected: str) -> str:
    if expected.startswith("refused"):
        said = expected.removeprefix("refused").removeprefix(":").strip()
        return f"refused: “… {said} …”" if said else "refused in a sentence"
    return "read" if expected == READ else expected


def page() -> str:
    """The page as Markdown."""
    formats = [
        (case.name + (f", value_range {case.value_range}" if case.value_range else ""), case.expected)
        for case in INPUTS
    ]
    tables = {
        "Layouts": [(layout.name, layout.expected) for layout in LAYOUTS],
        "Image files": formats,
        "Training sets in Python": [(row.name, row.expected) for row in PYTHON_INPUTS],
        "Models": [(row.name, row.expected) for row in MODEL_INPUTS],
    }
    count = sum(map(len, tables.values()))
    parts = [
        HEAD,
        f"{count} inputs: " + ", ".join(f"{len(rows)} {name.lower()}" for name, rows in tables.items()) + ".\n",
    ]
    for name, rows in tables.items():
        lines = [f"| {_cell(what)} | {_cell(_outcome(expected))} |" for what, expected in rows]
        parts.append(
            "\n".join([f"## {name}\n", f"{EXPLAINED[name]}\n", "| input | what happens |", "|---|---|", *lines]) + "\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
