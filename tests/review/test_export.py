import json
import re

import pytest

from hf_score.cli import main
from hf_score.detection import Selection
from hf_score.review import DecisionStore, export_page


@pytest.fixture
def exported(make, tmp_path):
    run = make(rows=24, classes=("shirt", '</script><img src="http://e.example/">', "coat"), missing=(3,))
    DecisionStore(run).decide([0], "core", "a sleeve")
    return export_page(run, tmp_path / "page.html", limit=3)


def embedded(page) -> dict:
    text = page.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="review-data">(.*?)</script>', text, re.DOTALL)
    return json.loads(data)


def test_page_holds_pictures_of_the_first_of_each_cluster_and_says_so(exported):
    data = embedded(exported)
    kept = {row for cluster in data["clusters"] for row in cluster["rows"]}
    assert all(len(cluster["rows"]) == min(3, cluster["size"]) for cluster in data["clusters"])
    assert set(data["pictures"]) == {f"{kind}/{row}" for kind in ("original", "heatmap", "masked") for row in kept}
    assert all(re.match(r"data:image/(png|jpeg);base64,", uri) for uri in data["pictures"].values())
    assert "at most 3 candidates of each cluster" in exported.read_text()
    assert data["decisions"] == {"0": ["core", "person", "a sleeve", ""]}
    assert list(data["clusters"][0]["evidence"]) == ["position", "colour", "masked_alone"]


def test_page_asks_for_nothing_outside_itself_and_names_stay_text(exported):
    text = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]*", "", exported.read_text(encoding="utf-8"))
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["']|url\(|@import|<link|<iframe""", text)
    assert text.count("</script>") == 2
    assert re.findall(r"https?://[^\s\"<\\]+", text) == ["http://e.example/"]  # within the data, as text


def test_the_embedded_selection_is_one_that_load_accepts(exported, tmp_path, run):
    template = embedded(exported)["selection"]
    template["decisions"] = [{"idx": 1000, "label": 0, "verdict": "spurious", "decided_by": "person", "note": ""}]
    path = tmp_path / "selection.json"
    path.write_text(json.dumps(template))
    (decision,) = Selection.load(path, dataset_fingerprint="data0", model_fingerprint="model0").spurious
    assert decision.idx == 1000


def test_command_writes_the_page(run, tmp_path, capsys):
    assert main(["review", str(run), "--export", str(tmp_path / "new" / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "page.html")
    assert embedded(tmp_path / "new" / "page.html")["run"] == "run"
