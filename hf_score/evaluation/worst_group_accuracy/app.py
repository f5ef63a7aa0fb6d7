"""The metric's Space: a table of predictions goes in, accuracy by group comes out."""

from pathlib import Path
from typing import Any

import evaluate
import gradio as gr

__all__ = ["demo", "measure"]

FOLDER = Path(__file__).parent
EXAMPLE = [[0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1], [1, 1, 2], [1, 1, 2]]

metric = evaluate.load(str(FOLDER / "worst_group_accuracy.py"))


def measure(rows: list[list[Any]], train_group_counts: str) -> list[list[Any]]:
    """Rows of prediction, reference and group, and counts with commas between → rows of measure and percent."""
    try:
        columns = [[int(value) for value in column] for column in zip(*rows, strict=True)]
        counts = [int(count) for count in train_group_counts.split(",")] if train_group_counts.strip() else None
        predictions, references, groups = columns
        measured = metric.compute(
            predictions=predictions, references=references, groups=groups, train_group_counts=counts
        )
    except (TypeError, ValueError) as error:
        raise gr.Error(f"Fill every cell with a whole number, and give one count per group ({error}).") from error
    return [[name, "–" if value != value else f"{100 * value:.1f}"] for name, value in measured.items()]


with gr.Blocks(title="Worst-group accuracy") as demo:
    gr.Markdown((FOLDER / "README.md").read_text(encoding="utf-8").split("---", 2)[2])
    with gr.Row():
        with gr.Column():
            table = gr.Dataframe(
                value=EXAMPLE,
                headers=["prediction", "reference", "group"],
                datatype="number",
                type="array",
                column_count=3,
                interactive=True,
            )
            counts = gr.Textbox(label="Training examples per group, with commas between (optional)")
            button = gr.Button("Measure", variant="primary")
        result = gr.Dataframe(headers=["measure", "percent"], interactive=False, type="array")
    button.click(measure, [table, counts], result)

if __name__ == "__main__":
    demo.launch()
