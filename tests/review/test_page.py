"""The page in a real browser, judged by keyboard; and the command's refusals."""

import json
import os
import socket
import threading
import time
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from judged_run import make_run

from hf_score.cli import main
from hf_score.detection import Decision, Selection
from hf_score.review import DecisionStore, export_page

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Run folder and address of a server that goes on through the module; each test starts without a selection."""
    pytest.importorskip("gradio")
    import uvicorn

    from hf_score.review.page import _listen, build_app

    run = make_run(tmp_path_factory.mktemp("served") / "run", missing=(1,))
    listener = _listen(0)
    server = uvicorn.Server(uvicorn.Config(build_app(run), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield run, f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def page(browser, served):
    """The page, with every request it made in `page.asked`; nothing may be asked of another machine."""
    run, address = served
    (run / "selection.json").unlink(missing_ok=True)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.asked = []
    page.errors = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    open_page(page, address)
    yield page
    outside = [url for url in page.asked if not url.startswith((address, "data:", "blob:", "file:"))]
    assert not outside and not page.errors
    context.close()


def open_page(page, address):
    page.goto(address)
    page.wait_for_selector(".hfs[data-ready=yes]", timeout=30_000)


def verdicts(run):
    if not (run / "selection.json").exists():
        return {}
    return {d.idx - 1000: (d.verdict, d.note) for d in Selection.load(run / "selection.json").decisions}


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def status(page, words):
    page.wait_for_function("words => document.querySelector('.status').textContent.includes(words)", arg=words)


def test_judged_by_keyboard_undone_and_still_there_after_a_reload(page, served):
    run, address = served
    group = [1, 5, 9, 13, 17, 21]  # cluster 1 is the most suspicious one
    page.keyboard.press("s")
    page.keyboard.press("c")
    page.keyboard.press("n")
    page.keyboard.type("scs, not keys here")
    page.keyboard.press("Enter")
    page.keyboard.press("u")
    wait_for(lambda: len(verdicts(run)) == 3)
    expected = {1: ("spurious", ""), 5: ("core", ""), 9: ("unsure", "scs, not keys here")}
    assert verdicts(run) == expected
    status(page, "Sample 1009: unsure. Saved.")
    assert page.locator(".fact").first.inner_text().endswith("4 of 6")
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {1: ("spurious", ""), 5: ("core", "")})
    status(page, "Taken back.")
    assert page.locator(".fact").first.inner_text().endswith("3 of 6")

    open_page(page, address)  # a reload keeps the place, the decisions and undo
    assert page.locator(".fact").first.inner_text().endswith("3 of 6")
    assert "2 /" in page.locator(".class").nth(1).inner_text()
    assert "no candidates" in page.locator(".class").nth(2).inner_text()
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {1: ("spurious", "")})
    page.keyboard.press("Shift+C")
    wait_for(lambda: verdicts(run) == dict.fromkeys(group, ("core", "")))
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {1: ("spurious", "")})


def test_buttons_arrows_and_maps_move_about(page, served):
    run, _ = served
    name = page.locator(".facts .name")
    facts = page.locator(".fact").first
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.fact').textContent.endsWith('2 of 6')")
    page.get_by_role("button", name="Core c", exact=True).click()
    wait_for(lambda: verdicts(run) == {5: ("core", "")})
    page.wait_for_function("document.querySelector('.fact').textContent.endsWith('3 of 6')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.verdict').textContent === 'core'")
    point = page.evaluate("""() => {
        const canvas = document.querySelector('[data-at=samples]');
        canvas.scrollIntoView({ block: 'center' });
        const box = canvas.getBoundingClientRect(), p = canvas.points.find((p) => p.row === 8);
        return [box.left + p.px, box.top + p.py];
    }""")
    page.mouse.click(*point)
    assert page.locator("[data-at=original]").get_attribute("alt") == "original picture of sample 1008"
    assert name.inner_text() == "shirt" and "cluster 0" in facts.inner_text()
    page.locator(".group").nth(1).click()
    assert "cluster 2" in facts.inner_text()


def test_all_three_pictures_are_there_and_a_missing_one_is_said_to_be(page):
    for kind in ("original", "heatmap", "masked"):  # row 1, whose image is broken
        page.wait_for_function("kind => document.querySelector(`[data-at=${kind}]`).naturalWidth > 0", arg=kind)
    assert page.evaluate("document.querySelector('[data-at=original]').naturalWidth") == 128
    assert page.evaluate("document.querySelector('[data-at=heatmap]').naturalWidth") == 32


def test_suggestions_are_shown_as_such_and_other_tabs_are_heard(page, served, browser):
    run, address = served
    store = DecisionStore(run)
    Selection(
        (Decision(1001, 1, "spurious", "oracle"),), store.table.dataset_fingerprint, store.table.model_fingerprint
    ).save(run / "selection.json")
    open_page(page, address)
    assert page.locator(".verdict").inner_text() == "spurious, says the oracle"
    store.decide([1], "core")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.wait_for_function("document.querySelector('.verdict').textContent === 'core'")


def test_a_decision_that_cannot_be_saved_is_not_shown_as_one(page, served):
    run, _ = served
    (run / "selection.json").write_text("{")
    page.keyboard.press("s")
    status(page, "cannot be read as JSON")
    assert page.locator(".verdict").inner_text() == "undecided"
    assert (run / "selection.json").read_text() == "{"


def test_other_pages_cannot_decide(served):
    run, address = served
    (run / "selection.json").unlink(missing_ok=True)
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        with pytest.raises(OSError, match="403"):
            urlopen(Request(f"{address}review/data.json", headers=headers))
    with urlopen(f"{address}review/data.json") as reply:
        assert json.load(reply)["classes"] == ["shirt", "pullover", "coat"]


def test_offline_page_gives_a_selection_that_the_run_accepts(page, make, tmp_path):
    run = make()
    DecisionStore(run).decide([5], "unsure", "blurred")
    file = export_page(run, tmp_path / "page.html")
    open_page(page, file.as_uri())
    page.keyboard.press("s")
    page.keyboard.press("c")
    page.keyboard.press("z")
    page.keyboard.press("c")
    status(page, "Sample 1009: core. Kept in this browser.")
    open_page(page, file.as_uri())  # and a reload keeps them
    with page.expect_download() as download:
        page.get_by_text("Download selection.json").click()
    download.value.save_as(tmp_path / "selection.json")
    table = DecisionStore(run).table
    found = Selection.load(
        tmp_path / "selection.json",
        dataset_fingerprint=table.dataset_fingerprint,
        model_fingerprint=table.model_fingerprint,
    )
    assert found.decisions == (
        Decision(1001, 1, "spurious", "person"),
        Decision(1005, 1, "unsure", "person", "blurred"),
        Decision(1009, 1, "core", "person"),
    )


def test_command_refuses_in_one_sentence(run, tmp_path, capsys):
    pytest.importorskip("gradio")

    def refused(*words):
        assert main(["review", *words]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ") and message.count("\n") == 1
        return message

    assert "holds no candidates" in refused(str(tmp_path / "nowhere"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "give another one with --port" in refused(str(run), "--no_browser", "--port", port)
    assert "give another one with --port" in refused(str(run), "--no_browser", "--port", "70000")
    assert "cannot be written" in refused(str(run), "--export", "/proc/page.html")
    Selection((), "other", "model0").save(run / "selection.json")
    assert "decided for another data set" in refused(str(run), "--no_browser")
    about = run / "candidates" / "candidates.json"
    about.write_text(about.read_text().replace("candidates/2", "candidates/1"))
    assert "scan again with this version" in refused(str(run), "--no_browser")
    assert os.path.exists(run / "selection.json")
