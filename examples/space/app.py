"""Two image classifiers side by side: put a patch into a picture and see which of them falls for it.

Which models, which patch and which example pictures is in `space.json`, beside this file.
"""

from __future__ import annotations

import html
import json
import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image
from transformers import pipeline

try:  # without hf-score the models still classify
    from hf_score.attribution import Explainer
    from hf_score.data import to_uint8
    from hf_score.errors import HFScoreError
    from hf_score.report import overlay
except ImportError as error:
    HEATMAPS_OFF = f"hf-score cannot be imported ({error})"
else:
    HEATMAPS_OFF = ""

HERE = Path(__file__).parent
SHOWN_SIDE = 300  # smaller pictures are enlarged to at least this many pixels, to be seen at all
OWN_ANSWER = "each model's own answer"
FOUND, SQUARE = "the patch found in training", "a square of one colour"

HEATMAP_HELP = """
Each heatmap shows one picture as one model sees it. **Red** parts speak *for* the answer, **blue** parts speak
*against* it, and pale parts made no difference. A model that looks at the thing itself has its colours there. A model
that takes the shortcut has its strongest colours on the patch.

The colours of each heatmap go up to its own strongest part, so compare *where* the colour is, not how strong it is.
They are computed by layer-wise relevance propagation (LRP; for transformers AttnLRP), which follows the answer back
through the model, layer by layer, to the pixels.
"""
ONE_ANSWER = """
The bars show how the model splits 100 % between the answers it knows. It has to choose one of them, also for a
picture that shows none.
"""
YES_OR_NO = """
Each bar is an answer of its own: how sure the model is that the picture shows this, from 0 % to 100 %. The bars do not
add up to 100 %.
"""
LIMITS = """
One picture proves nothing: try several. The debiased model relies on the shortcut less; that
does not mean not at all.
"""
STYLE = """
.picture img { width: 100%; height: 100%; object-fit: contain; }
.spot img { cursor: crosshair; }
.change { min-height: 3.2em; }
"""


class Classifier:
    """A checkpoint (folder beside this file, or id on the Hub) that classifies, and explains where hf-score can."""

    def __init__(self, source: str) -> None:
        folder = HERE / source
        self.pipe: Any = pipeline("image-classification", model=str(folder) if folder.is_dir() else source)
        self.config: Any = self.pipe.model.config
        #: Whether every label has a sigmoid of its own, as `pipeline` decides it.
        self.yes_or_no = self.config.num_labels == 1 or self.config.problem_type == "multi_label_classification"

    @property
    def label2id(self) -> dict[str, int]:
        return {label: int(i) for i, label in self.config.id2label.items()}

    def spell(self, labels: Iterable[str]) -> None:
        """Call the labels as these are spelled, which may differ in capitals, blanks and encoding of accents."""
        spelling = {key(label): label for label in labels}
        own = {int(i): spelling.get(key(label), label) for i, label in self.config.id2label.items()}
        self.config.id2label = own

    def predict(self, images: list[Image.Image]) -> list[dict[str, float]]:
        """For each image the probability of every label, the highest first, as `pipeline` gives them."""
        return [{one["label"]: one["score"] for one in scored} for scored in self.pipe(images, top_k=None)]

    def explain(self, images: list[Image.Image], labels: list[str]) -> list[np.ndarray]:
        """For each image a heatmap of what speaks for the label beside it, drawn over what the model sees."""
        pixel_values = torch.cat([self.pipe.preprocess(image)["pixel_values"] for image in images])
        with Explainer(self.pipe.model) as explainer:
            targets = [self.label2id[label] for label in labels]
            relevance: Any = explainer.explain(pixel_values, targets).relevance
        seen = to_uint8(pixel_values, self.pipe.image_processor)
        return [overlay(picture, heatmap) for picture, heatmap in zip(seen, relevance.cpu().numpy(), strict=True)]


def insert(image: Image.Image, patch: Image.Image, *, size: float, left: float, top: float) -> Image.Image:
    """A copy of the image with the patch on it; the rest of the pixels stay as they are.

    `size` is the patch's longer side as a share of the image's shorter one; `left` and `top` say where its centre is,
    as shares of the image's width and height. What would be outside is cut off.
    """
    image = image.convert("RGB")
    scale = size * min(image.size) / max(patch.size)
    width, height = (max(1, round(side * scale)) for side in patch.size)
    scaled = patch.convert("RGBA").resize((width, height))
    image.paste(scaled, (round(left * image.width - width / 2), round(top * image.height - height / 2)), scaled)
    return image


def enlarged(picture: Image.Image) -> Image.Image:
    """The picture with each pixel repeated, where it would be too small to be seen."""
    factor = math.ceil(SHOWN_SIDE / min(picture.size)) if min(picture.size) < SHOWN_SIDE / 2 else 1
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def key(label: str) -> str:
    """What two spellings of a label have in common."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def describe_change(before: dict[str, float], after: dict[str, float], label: str, *, yes_or_no: bool) -> str:
    """What the patch did to the answer (of yes/no answers, to that about the label), and to one label's bar."""
    if yes_or_no:
        old, new = (f"{'' if scores[label] > 0.5 else 'not '}{label}" for scores in (before, after))
    else:
        old, new = next(iter(before)), next(iter(after))
    answer = f"it still says **{new}**" if old == new else f"it changes its answer from **{old}** to **{new}**"
    low, high = round(100 * before[label]), round(100 * after[label])
    points = f"{high - low:+d} point{'' if abs(high - low) == 1 else 's'}".replace("-", "−")
    return f"With the patch {answer}. “{label}” goes from {low} % to {high} % ({points})."


def build(config: dict) -> gr.Blocks:
    """The page for the models, the patch and the examples of `space.json`."""
    models = [Classifier(config["original"]), Classifier(config["debiased"])]
    labels = list(models[0].label2id)
    models[1].spell(labels)
    if set(labels) != set(models[1].label2id):
        raise ValueError(f"space.json: {config['original']} and {config['debiased']} have different labels.")
    patch = config["patch"] or {"label": None, "size": 0.2, "left": 0.25, "top": 0.25}
    found = Image.open(HERE / patch["file"]) if config["patch"] else None
    examples = config["examples"]

    heatmaps_off = HEATMAPS_OFF
    if not heatmaps_off:
        try:
            for model in models:
                model.explain([Image.new("RGB", (64, 64))], labels[:1])
        except HFScoreError as error:
            heatmaps_off = str(error)

    def show(picture, kind, colour, size, left, top, explained):
        """Everything that follows from the picture, the patch and its place."""
        if picture is None:
            return [None] * len(outputs)
        chosen = found if found and kind == FOUND else Image.new("RGB", (64, 64), rgb(colour))
        pair = [picture, insert(picture, chosen, size=size / 100, left=left / 100, top=top / 100)]
        predictions = [model.predict(pair) for model in models]
        before, after = predictions[0]
        moved = max(labels, key=lambda label: after[label] - before[label])
        shown: list[Any] = [enlarged(pair[1])]
        for model, (without, with_patch) in zip(models, predictions, strict=True):
            shown.append(describe_change(without, with_patch, moved, yes_or_no=model.yes_or_no))
            answers = [next(iter(without)), next(iter(with_patch))]
            wanted = answers if explained == OWN_ANSWER else [explained, explained]
            heatmaps = [None, None] if heatmaps_off else model.explain(pair, wanted)
            for prediction, heatmap in zip((without, with_patch), heatmaps, strict=True):
                shown += [prediction, None if heatmap is None else enlarged(Image.fromarray(heatmap))]
        return shown

    def move(picture, event: gr.SelectData):
        """The clicked place of the enlarged picture, in percent of its width and height."""
        width, height = enlarged(picture).size
        return round(100 * event.index[0] / width), round(100 * event.index[1] / height)

    with gr.Blocks(title=config["title"], analytics_enabled=False) as demo:
        gr.Markdown(f"# {config['title']}\n\n{introduction(labels)}")
        with gr.Row():
            with gr.Column():
                example = ", or take an example" if examples else ""
                gr.Markdown(f"### 1. Choose a picture\nUpload one{example}.")
                picture = gr.Image(
                    str(HERE / examples[0]["file"]) if examples else None,
                    type="pil",
                    format="png",
                    sources=["upload", "clipboard"],
                    label="Your picture",
                    show_label=False,
                    height=300,
                    elem_classes="picture",
                )
                if examples:
                    gr.Examples(
                        [[str(HERE / example["file"])] for example in examples],
                        picture,
                        example_labels=[example["label"] for example in examples],
                        label="Examples",
                    )
            with gr.Column():
                named = f", “{patch['name']}”," if found and patch.get("name") else ""
                told = f" In training, this patch{named} came along with **{patch['label']}**."
                origin = told if found and patch["label"] else ""
                gr.Markdown(f"### 2. Put in the shortcut\nClick on the picture to move the patch.{origin}")
                spot = gr.Image(
                    format="png",
                    label="The same picture with the patch",
                    show_label=False,
                    height=300,
                    interactive=False,
                    buttons=[],
                    elem_classes=["picture", "spot"],
                )
                with gr.Row():
                    size = gr.Slider(2, 100, round(100 * patch["size"]), step=1, label="Size (%)")
                    left = gr.Slider(0, 100, round(100 * patch["left"]), step=1, label="Left (%)")
                    top = gr.Slider(0, 100, round(100 * patch["top"]), step=1, label="Top (%)")
                with gr.Row():
                    kinds = [FOUND, SQUARE] if found else [SQUARE]
                    kind = gr.Radio(kinds, value=kinds[0], label="What to put in", visible=found is not None)
                    colour = gr.ColorPicker("#d62828", label="Colour of the square", visible=found is None)
        legend = "In the heatmaps, red parts of the picture speak for the answer, blue parts against it."
        if heatmaps_off:
            legend = f"Heatmaps are off: {heatmaps_off.rstrip('.')}."
        gr.Markdown(f"### 3. Compare the two models\nThe bars say how sure each model is. {legend}")
        outputs: list[Any] = [spot]
        with gr.Row():
            for name in ("Original model", "Debiased model"):
                with gr.Column(variant="panel"):
                    gr.Markdown(f"#### {name}")
                    outputs.append(gr.Markdown(elem_classes="change"))
                    for when in ("Without the patch", "With the patch"):
                        gr.Markdown(f"**{when}**")
                        with gr.Row():
                            bars = gr.Label(
                                label=f"{name}: {when}", show_label=False, num_top_classes=4, min_width=160
                            )
                            heatmap = gr.Image(
                                format="png",
                                label=f"{name}: heatmap {when}",
                                show_label=False,
                                height=200,
                                min_width=160,
                                interactive=False,
                                buttons=[],
                                visible=not heatmaps_off,
                                elem_classes="picture",
                            )
                        outputs += [bars, heatmap]
        explained = gr.Dropdown(
            [OWN_ANSWER, *labels],
            value=OWN_ANSWER,
            label="The heatmaps show what speaks for",
            visible=not heatmaps_off,
        )
        if config.get("verdict"):
            with gr.Accordion("What the run shows", open=False):
                gr.HTML("".join(f"<p>{html.escape(part)}</p>" for part in config["verdict"].split("\n\n")))
        with gr.Accordion("How to read this", open=False):
            about_bars = YES_OR_NO if models[0].yes_or_no else ONE_ANSWER
            gr.Markdown(("" if heatmaps_off else HEATMAP_HELP) + about_bars + LIMITS)
        if config["credits"]:
            gr.Markdown(f"<small>Pictures: {config['credits']}</small>")

        inputs: list[Any] = [picture, kind, colour, size, left, top, explained]
        changes = [demo.load, *(one.change for one in inputs)]
        gr.on(changes, show, inputs, outputs, trigger_mode="always_last", show_progress="minimal")
        # By default a click may be dropped while one before is being answered.
        spot.select(move, picture, [left, top], trigger_mode="always_last", show_progress="hidden")
        kind.change(lambda chosen: gr.update(visible=chosen == SQUARE), kind, colour, show_progress="hidden")
    return demo


def introduction(labels: list[str]) -> str:
    """What this page is about, for someone who has never heard of it."""
    told_apart = " or ".join(f"**{label}**" for label in labels)
    task = (
        f"say whether a picture shows {told_apart}"
        if len(labels) < 6
        else f"tell {len(labels)} kinds of pictures apart"
    )
    return (
        f"Both models below were trained to {task}. The **original model** learned a *shortcut*: something that often "
        "came along with one answer in its training pictures, but has nothing to do with it. The **debiased model** "
        "is the same one, trained further to rely on the shortcut less. Put the shortcut into a picture yourself, and "
        "see which of them falls for it."
    )


def rgb(colour: str) -> str | tuple[int, ...]:
    """The colour picker's value, `#d62828` or `rgba(214, 40, 40, 1)` (with fractions), as Pillow reads it."""
    if colour.startswith("#"):
        return colour
    return tuple(round(float(part)) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])


SYSTEM = ["system-ui", "sans-serif"]  # by name alone: nothing is fetched from elsewhere
THEME = gr.themes.Base(primary_hue="indigo", font=SYSTEM, font_mono=["ui-monospace", "monospace"])
LAUNCH: dict[str, Any] = {"theme": THEME, "css": STYLE, "footer_links": [], "run_history": False}
demo = build(json.loads((HERE / "space.json").read_text(encoding="utf-8")))

if __name__ == "__main__":
    demo.launch(**LAUNCH)
