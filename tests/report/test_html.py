import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from hf_score.data.classes import file_names
from hf_score.errors import HFScoreError
from hf_score.pipeline.pictures import figures_of
from hf_score.report import write_report


class Page(HTMLParser):
    """Tags with their attributes, text, and the cells of the table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def write(tmp_path):
    def write(results, figures=None):
        return Page(write_report(tmp_path / "report", results, figures or {}).read_text(encoding="utf-8"))

    return write


def test_page_asks_for_nothing_outside_itself(write, results):
    picture = Image.new("RGB", (30, 20), (1, 2, 3))
    page = write(results, {"contact_sheet/benign": (picture, "caption"), "heatmaps": (picture, "caption")})
    assert not {"script", "link", "iframe", "object", "embed", "base", "source", "video"} & {t for t, _ in page.tags}
    for tag, attributes in page.tags:
        assert "srcset" not in attributes
        assert "style" not in attributes
        if "src" in attributes:
            assert attributes["src"].startswith("data:image/"), tag
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_pictures_are_inside_and_described(write, results):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    page = write(results, {"contact_sheet/benign": (picture, "Candidates of class benign.")})
    images = page.all("img")
    assert len(images) == 3  # bars and curves are drawn from the results
    assert all(image["alt"] for image in images)
    sheet = next(image for image in images if image["alt"].startswith("benign: Contact sheet"))
    kind, data = sheet["src"].split(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()
    assert "Candidates of class benign." in page.text


def test_heavy_photographs_become_jpeg(write, results):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8))
    page = write(results, {"contact_sheet/a": (noise, "noise")})
    assert any(image["src"].startswith("data:image/jpeg") for image in page.all("img"))


def test_sections_come_in_reading_order(write, results):
    picture = (Image.new("RGB", (3, 3)), "caption")
    page = write(results, {"training_curves": picture, "heatmaps": picture, "contact_sheet/a": picture, "x": picture})
    order = [
        "facebook/deit-tiny-patch16-224 on isic_patches",
        "The gain survives its controls",
        "Before and after",
        "What the model recognises the classes by",
        "Where it looks, before and after",
        "Training",
        "More pictures",
        "How the samples were chosen",
        "Data",
        "Configuration",
        "How to get the same",
        "Licences and sources",
    ]
    places = [page.text.index(f"{words}\n") for words in order]
    assert places == sorted(places)


def test_table_holds_every_method_and_the_empty_group(write, make_results):
    accuracies = {"erm": [0.9, 1.0, 0.5, None], "score": [0.7, 0.8, 0.7, None]}
    page = write(make_results(("erm", "score"), accuracies=accuracies))
    header, erm, score = page.rows[:3]
    assert header[:3] == ["methodsupervision", "worst group", "average"]
    assert (erm[0], score[0]) == ("ERMclass labels", "SCORE-Xclass labels")
    assert (erm[1], score[1]) == ("50.0", "70.0")
    assert erm[header.index("malignant, patch")] == score[header.index("malignant, patch")] == "–"
    assert all(a["scope"] == "col" for a in page.all("th")[: len(header)])
    assert [a["scope"] for a in page.all("th")[len(header) :]] == ["row", "row"]
    assert "malignant, patch0" in "".join(page.text.split("Test images per group")[1].split("\n"))


def test_verdict_is_on_the_page(write, make_results):
    page = write(make_results(("erm", "continued_erm", "score"), accuracies={"erm": [0.9, 0.9, 0.9, 0.9]}))
    assert "SCORE-X did not help" in page.text
    assert any(a.get("class") == "verdict bad" for a in page.all("section"))


def test_hostile_names_stay_text(write, make_results):
    evil = '<script>alert("1")</script>'
    results = make_results(groups=[evil, "b", "c", "d"])
    results["model"]["name"] = results["dataset"]["licence"] = f'"><img src=x onerror=alert(1)>{evil}'
    results["dataset"]["class_names"] = [evil, "{{ 7 * 7 }}"]
    results["methods"]["score"]["label"] = results["methods"]["score"]["supervision"] = evil
    results["config"][evil] = evil
    results["selection"]["classes"] = {evil: 1}
    page = write(results, {f"contact_sheet/{evil}": (Image.new("RGB", (3, 3)), evil)})
    assert not page.all("script")
    assert all(image["src"].startswith("data:") and "onerror" not in image for image in page.all("img"))
    assert page.text.count(evil) > 5
    assert "{{ 7 * 7 }}" in page.text


def test_oracle_is_said_to_stand_in_for_a_person(write, results):
    assert "stands in for a person" in write(results).text
    results["selection"]["decided_by"] = "person"
    assert "stands in" not in write(results).text
    results["selection"] = None
    assert "not recorded" in write(results).text


def test_choosing_by_groups_is_confessed(write, results):
    assert "oracle's results" not in write(results).text
    results["config"]["allow_group_oracle"] = True
    assert "oracle's results" in write(results).text


def test_no_local_path_and_no_token_on_the_page(write, results):
    page = write(results)
    assert "/home/ann" not in page.text
    assert "hf_secret" not in page.text
    assert "python run_score.py --dataset 'my images' --hub_token '***'" in page.text


def test_least_that_a_run_can_leave(write):
    results = {
        "model": {"name": "m"},
        "dataset": {"name": "d", "class_names": ["a", "b", "c"]},
        "methods": {"erm": {"runs": [{"seed": 0, "metrics": {"accuracy": 0.5}}]}},
    }
    page = write(results)
    assert "m tells a, b, c." in page.text
    assert page.rows == [["methodsupervision", "average"], ["erm–", "50.0"]]
    assert not page.all("img")


def test_nothing_is_written_of_results_that_are_not_complete(tmp_path, results):
    for broken in ({**results, "methods": {}}, {key: results[key] for key in ("methods", "dataset")}):
        with pytest.raises(HFScoreError):
            write_report(tmp_path / "report", broken, {})
    assert not (tmp_path / "report").exists()


def test_the_contents_lead_to_every_section(write, results):
    page = write(results, {"heatmaps": (Image.new("RGB", (3, 3)), "caption")})
    links = [link["href"].removeprefix("#") for link in page.all("a") if link["href"].startswith("#")]
    assert links == [heading["id"] for heading in page.all("h2")] and "where-it-looks-before-and-after" in links


def test_a_thousand_classes_make_no_page_of_more_than_ten_megabytes(tmp_path, make_results):
    """The sheets of those classes come first of which samples were kept, and the page says that it shows some."""
    names = [f"class number {i}" for i in range(1000)]
    groups = [f"{name}, {attribute}" for name in names for attribute in ("no", "yes")]
    accuracies = {key: [0.5] * 2000 for key in ("erm", "score")}
    results = make_results(("erm", "score"), groups=groups, accuracies=accuracies)
    results["dataset"]["class_names"] = names
    results["selection"]["classes"] = {**dict.fromkeys(names, 0), "class number 700": 9}
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1440, 3), dtype=np.uint8)
    folder = tmp_path / "contact_sheets"
    folder.mkdir()
    Image.fromarray(noise).save(folder / f"{file_names(names)[700]}.png")
    for file in file_names(names)[:9]:
        Image.fromarray(noise[:1000]).save(folder / f"{file}.png")
    path = write_report(tmp_path / "report", results, figures_of(results, folder))
    assert path.stat().st_size < 10_000_000
    page = Page(path.read_text(encoding="utf-8"))
    captions = page.text[page.text.index("What the model recognises the classes by\n") :]
    assert "Shown are\n" in captions and "of 1000 classes" in captions
    assert 0 < captions.index("Candidates of class class number 700.") < captions.index("class class number 0.")
    assert "class number 999" in page.text  # among the data's facts
