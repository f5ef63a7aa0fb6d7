"""The page of the example Space: its predictions, the inserted patch, the heatmaps, and all of it in a browser."""

import json
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from model_inputs import MULTI, save_vit
from PIL import Image
from publishing.space.conftest import EXAMPLE, load_app
from transformers import pipeline

CHROMIUM = "/usr/bin/chromium"
SETTINGS = json.loads((EXAMPLE / "space.json").read_text())
PLACE = {key: SETTINGS["patch"][key] for key in ("size", "left", "top")}


def example(label):
    (file,) = [one["file"] for one in SETTINGS["examples"] if one["label"] == label]
    return Image.open(EXAMPLE / file)


@pytest.mark.parametrize("model", ["original", "debiased"])
def test_predictions_are_those_of_a_pipeline(app, model):
    images = [example("shirt, no square (1)"), Image.new("L", (50, 40), 90), Image.new("RGB", (16, 80), "red")]
    expected = pipeline("image-classification", model=str(EXAMPLE / model))
    for image, predicted in zip(images, app.Classifier(model).predict(images), strict=True):
        assert list(predicted.items()) == [(one["label"], one["score"]) for one in expected(image)]


def test_a_patch_changes_its_own_pixels_and_no_others(app):
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    patched = np.asarray(app.insert(image, Image.new("RGB", (7, 7), (1, 2, 3)), size=0.2, left=0.5, top=0.25))
    inside = np.zeros((60, 80), dtype=bool)
    inside[9:21, 34:46] = True  # 12 pixels, a fifth of the shorter side, around (40, 15)
    assert (patched[inside] == (1, 2, 3)).all()
    assert (patched[~inside] == noise[~inside]).all()
    assert (np.asarray(image) == noise).all()

    beyond = np.asarray(app.insert(image, Image.new("RGB", (7, 7), (1, 2, 3)), size=0.2, left=1, top=0))
    inside = np.zeros((60, 80), dtype=bool)
    inside[:6, 74:] = True
    assert (beyond[inside] == (1, 2, 3)).all() and (beyond[~inside] == noise[~inside]).all()

    transparent = app.insert(image, Image.new("RGBA", (7, 7), (1, 2, 3, 0)), size=0.2, left=0.5, top=0.25)
    assert (np.asarray(transparent) == noise).all()


@pytest.mark.parametrize("name", ["shirt", "pullover"])
def test_the_found_patch_is_the_shortcut_of_the_data_set(app, name):
    """The test set has each photograph once without and once with the square."""
    patched = app.insert(example(f"{name}, no square (1)"), Image.open(EXAMPLE / SETTINGS["patch"]["file"]), **PLACE)
    assert (np.asarray(patched) == np.asarray(example(f"{name}, red square (1)"))).all()


def test_the_original_model_falls_for_the_patch_and_shows_it(app):
    patch = Image.open(EXAMPLE / SETTINGS["patch"]["file"])
    shirts = [example(f"shirt, no square ({n})") for n in (1, 2)]
    patched = [app.insert(shirt, patch, **PLACE) for shirt in shirts]
    original, debiased = app.Classifier("original"), app.Classifier("debiased")

    def gain(model):
        before, after = model.predict(shirts), model.predict(patched)
        return np.mean([b["pullover"] - a["pullover"] for a, b in zip(before, after, strict=True)])

    assert gain(original) > 0.2
    assert abs(gain(debiased)) < 0.05
    heatmap = original.explain(patched[:1], ["pullover"])[0].astype(int)
    redness = np.clip(heatmap[..., 0] - heatmap[..., 2], 0, None)
    around = redness[1:10, 1:10].sum() / redness.sum()
    assert around > 3 * 81 / 32**2  # far more than its share of the area


def test_without_hf_score_it_still_classifies_and_says_so(monkeypatch):
    for name in ("hf_score", "hf_score.attribution", "hf_score.data"):
        monkeypatch.setitem(sys.modules, name, None)
    app = load_app(EXAMPLE)
    shown = " ".join(str(block.value) for block in app.demo.blocks.values() if hasattr(block, "value"))
    assert "Heatmaps are off: hf-score cannot be imported" in shown
    picture = example("shirt, no square (1)")
    show = next(function.fn for function in app.demo.fns.values() if function.name == "show")
    spot, *rest = show(picture, app.FOUND, "#d62828", 16, 17, 17, app.OWN_ANSWER)
    assert spot.size == (320, 320)
    for change, without, without_heatmap, with_patch, with_heatmap in (rest[:5], rest[5:]):
        assert change.startswith("With the patch it")
        assert next(iter(without)) == "shirt" and set(with_patch) == {"shirt", "pullover"}
        assert without_heatmap is None and with_heatmap is None


def test_the_verdict_is_on_the_page_and_names_in_it_stay_text(tmp_path):
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "space"))
    about = {**SETTINGS, "verdict": "Improved: <b>x</b>.\n\n*Not* checked.", "examples": [], "patch": None}
    (folder / "space.json").write_text(json.dumps(about))
    texts = [str(block.value) for block in load_app(folder).demo.blocks.values() if hasattr(block, "value")]
    assert "<p>Improved: &lt;b&gt;x&lt;/b&gt;.</p><p>*Not* checked.</p>" in texts
    assert any("Upload one." in text for text in texts) and not any("take an example" in text for text in texts)


def test_models_of_different_tasks_are_refused(tmp_path):
    folder = tmp_path / "space"
    shutil.copytree(EXAMPLE, folder)
    config = folder / "debiased" / "config.json"
    config.write_text(config.read_text().replace('"shirt"', '"coat"'))
    with pytest.raises(ValueError, match=r"space\.json: original and debiased have different labels"):
        load_app(folder)


@pytest.mark.parametrize("outputs", [["shirt"], ["Naïve shirt", "square"]])
def test_yes_or_no_answers_are_not_told_as_one_choice(outputs, tmp_path):
    """Models with a sigmoid for each label, which the second one spells in another way."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "space"))
    kind = MULTI if len(outputs) > 1 else {}
    spelled = [f" {unicodedata.normalize('NFD', name).upper()}" for name in outputs]
    for name, labels in (("original", outputs), ("debiased", spelled)):
        shutil.rmtree(folder / name)
        save_vit(folder / name, labels, **kind)
    app = load_app(folder)
    texts = [str(block.value) for block in app.demo.blocks.values() if hasattr(block, "value")]
    assert not any("splits 100 %" in text for text in texts) and any("Each bar is an answer" in text for text in texts)
    show = next(function.fn for function in app.demo.fns.values() if function.name == "show")
    _, *rest = show(example("shirt, no square (1)"), app.FOUND, "#d62828", 16, 17, 17, app.OWN_ANSWER)
    for change, without, heatmap, with_patch, _ in (rest[:5], rest[5:]):
        assert without.keys() == with_patch.keys() == {*outputs} and heatmap is not None
        assert any(f"still says **{sure}{name}**" in change for name in outputs for sure in ("", "not "))


@pytest.fixture(scope="module")
def address(app):
    _, address, _ = app.demo.launch(**app.LAUNCH, prevent_thread_lock=True, quiet=True)
    yield address
    app.demo.close()


@pytest.fixture
def page(address):
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1300})
        page.set_default_timeout(60_000)  # bounds failure, not speed
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))] and not errors
        browser.close()


def says(page, *words):
    """Waits until the sentences on the two models hold these words."""
    page.wait_for_function(
        "words => { const all = [...document.querySelectorAll('.prose.change')].map((one) => one.textContent);"
        " return words.every((word, i) => (all[i] ?? '').includes(word)); }",
        arg=words,
    )


def patched_picture(page, *, other_than=None, width=None):
    """The address of the picture with the patch, once it is there whole and, where asked, a new one or so wide."""
    found = page.wait_for_function(
        "([before, width]) => { const now = document.querySelector('.spot img');"
        " return now && now.complete && now.src !== before && now.naturalWidth && [null, now.naturalWidth]"
        ".includes(width) && now.src; }",
        arg=[other_than, width],
    )
    return found.json_value()


def place(page):
    """Size, left and top, as the page shows them."""
    return [int(one.input_value()) for one in page.locator("input[type=number]").all()]


def click_until_there(page, left, top):
    """Click on the picture at this percentage of its width and height, again where the page moved meanwhile."""
    timeout = pytest.importorskip("playwright.sync_api").TimeoutError
    for _ in range(6):
        picture = page.locator(".spot img")
        box = picture.bounding_box()
        picture.click(position={"x": left / 100 * box["width"], "y": top / 100 * box["height"]})
        try:
            numbers = "[...document.querySelectorAll('input[type=number]')].slice(1).map((one) => +one.value)"
            page.wait_for_function(f"wanted => `${{{numbers}}}` === `${{wanted}}`", arg=[left, top], timeout=10_000)
        except timeout:
            continue
        return
    raise AssertionError(f"clicked at {left}, {top}, and the patch stays at {place(page)[1:]}")


def test_example_patch_and_upload_in_a_browser(page, tmp_path):
    says(page, "changes its answer from shirt to pullover", "still says shirt")  # the first example is there
    assert place(page) == [16, 17, 17]
    before = patched_picture(page)
    page.get_by_text("shirt, red square (2)").click()
    says(page, "(+0 points)", "(+0 points)")  # the patch covers the square that is there already
    before = patched_picture(page, other_than=before)

    click_until_there(page, 75, 50)
    assert place(page) == [16, 75, 50]
    patched_picture(page, other_than=before)
    page.get_by_label("a square of one colour").click()
    page.wait_for_selector("text=Colour of the square")

    Image.new("RGB", (640, 480), "white").save(tmp_path / "white.png")
    before = patched_picture(page)
    page.get_by_label("Remove Image").click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "white.png")
    patched_picture(page, other_than=before, width=640)
    says(page, "With the patch it", "With the patch it")
    for picture in page.locator(".picture img").all():  # the upload, the patched one and four heatmaps
        assert picture.evaluate("one => one.complete && one.naturalWidth > 0")
    assert page.locator(".picture img").count() == 6
