"""The page in a real browser, judged by keyboard; and what its server answers to others."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from accessibility import WIDTHS, findings, too_wide
from judged_run import make_run

from hf_score.detection import Decision, Selection
from hf_score.review import CandidateTable, DecisionStore, export_page

CHROMIUM = "/usr/bin/chromium"
#: Seconds. Nothing takes that long; a busy machine may be slow, and a test that waits in vain has to end.
PATIENCE = 120
HERE = build_opener(ProxyHandler({}))


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
    pytest.importorskip("fastapi")
    import uvicorn

    from hf_score.review.app import build_app

    run = make_run(tmp_path_factory.mktemp("served") / "run", missing=(1,))
    (run / "run.yaml").touch()  # as a run of the command line has it
    with serving(uvicorn, build_app(CandidateTable.open(run))) as address:
        yield run, address


@contextmanager
def serving(uvicorn, app):
    """The address of an application."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(PATIENCE)
    listener.close()


@pytest.fixture
def page(browser, served):
    """The page, with every request it made in `page.asked`; nothing may be asked of another machine."""
    run, address = served
    (run / "selection.json").unlink(missing_ok=True)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    page.asked = []
    page.errors = []
    page.on("dialog", lambda dialog: dialog.accept())
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.extend([said.text] if "Security Policy" in said.text else []))
    open_page(page, address)
    yield page
    outside = [url for url in page.asked if not url.startswith((address, "data:", "blob:", "file:"))]
    assert not outside and not page.errors
    context.close()


def open_page(page, address):
    page.goto(address)
    page.wait_for_selector(".hfs[data-ready=yes]")


def verdicts(run):
    if not (run / "selection.json").exists():
        return {}
    return {d.idx - 1000: (d.verdict, d.note) for d in Selection.load(run / "selection.json").decisions}


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def text(page, selector):
    return page.locator(selector).first.text_content()


def place(page):
    """Such as `4 of 6`: where the candidate is in its cluster."""
    return text(page, "[data-at=clusterFacts] .value").split(": ")[1]


def status(page, words):
    wait_for(lambda: words in text(page, ".status"))


def test_judged_by_keyboard_undone_and_still_there_after_a_reload(page, served):
    run, address = served
    cluster = [1, 5, 9, 13, 17, 21]  # number 1 is the most suspicious one
    page.keyboard.press("s")
    page.keyboard.press("c")
    page.keyboard.press("n")
    page.keyboard.type("scs, not keys here")
    page.keyboard.press("Enter")
    page.keyboard.press("u")
    wait_for(lambda: len(verdicts(run)) == 3)
    expected = {1: ("spurious", ""), 5: ("core", ""), 9: ("unsure", "scs, not keys here")}
    assert verdicts(run) == expected
    status(page, "Candidate 1009: unsure. Saved.")
    assert place(page) == "4 of 6"
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {1: ("spurious", ""), 5: ("core", "")})
    status(page, "Taken back.")
    assert place(page) == "3 of 6"

    open_page(page, address)  # a reload keeps the place, the decisions and undo
    assert place(page) == "3 of 6"
    assert "2 /" in page.locator(".class").nth(1).inner_text()
    assert "no candidates" in page.locator(".class").nth(2).inner_text()
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {1: ("spurious", "")})
    status(page, "Taken back.")  # the page knows too
    page.keyboard.press("Shift+C")
    filled = {**dict.fromkeys(cluster, ("core", "")), 1: ("spurious", ""), 9: ("core", "scs, not keys here")}
    wait_for(lambda: verdicts(run) == filled)  # what was decided stays, and a note outlives its verdict
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {1: ("spurious", "")})


def test_buttons_arrows_and_maps_move_about(page, served):
    run, _ = served
    name = page.locator(".facts .name")
    facts = page.locator("[data-at=clusterFacts] .fact").first
    page.keyboard.press("ArrowRight")
    wait_for(lambda: place(page) == "2 of 6")
    page.get_by_role("button", name="Core c", exact=True).click()
    wait_for(lambda: verdicts(run) == {5: ("core", "")})
    wait_for(lambda: place(page) == "3 of 6")
    page.keyboard.press("ArrowLeft")
    wait_for(lambda: text(page, ".verdict") == "core")
    point = page.evaluate("""() => {
        const canvas = document.querySelector('[data-at=samples]');
        canvas.scrollIntoView({ block: 'center' });
        const box = canvas.getBoundingClientRect(), p = canvas.points.find((p) => p.row === 8);
        return [box.left + p.px, box.top + p.py];
    }""")
    page.mouse.click(*point)
    assert page.locator("[data-at=original]").get_attribute("alt") == "Candidate 1008"
    assert name.inner_text() == "shirt" and facts.inner_text().startswith("cluster\n0:")
    page.locator(".cluster").nth(1).click()
    assert facts.inner_text().startswith("cluster\n2:")


def test_all_three_pictures_are_there_and_a_missing_one_is_said_to_be(page):
    def width(kind):
        return page.evaluate("kind => document.querySelector(`[data-at=${kind}]`).naturalWidth", kind)

    wait_for(lambda: all(width(kind) > 0 for kind in ("original", "heatmap", "masked")))
    assert width("original") == 128 and width("heatmap") == 32  # row 1, whose image is broken


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
    wait_for(lambda: text(page, ".verdict") == "core")


def test_a_decision_that_cannot_be_saved_is_not_shown_as_one(page, served):
    run, _ = served
    (run / "selection.json").write_text("{")
    page.keyboard.press("s")
    status(page, "cannot be read as JSON")
    assert page.locator(".verdict").inner_text() == "undecided"
    assert (run / "selection.json").read_text() == "{"


def test_undo_is_each_tabs_own(page, served):
    run, address = served
    page.keyboard.press("s")
    wait_for(lambda: verdicts(run) == {1: ("spurious", "")})
    other = page.context.new_page()
    open_page(other, address)
    other.keyboard.press("c")
    wait_for(lambda: verdicts(run) == {1: ("spurious", ""), 5: ("core", "")})
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {5: ("core", "")})
    page.keyboard.press("z")
    status(page, "There is nothing of yours to take back.")
    assert verdicts(run) == {5: ("core", "")}


def test_by_keyboard_alone_a_cluster_is_named_filled_and_left(page, served):
    run, _ = served
    page.keyboard.press("m")
    page.keyboard.type("blue square")
    page.keyboard.press("Enter")
    status(page, "saved with the first spurious candidate")
    page.keyboard.press("n")
    page.keyboard.type("half a sleeve")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")  # nothing is decided yet: the note waits
    page.keyboard.press("c")
    wait_for(lambda: verdicts(run) == {5: ("core", "")})
    page.keyboard.press("Shift+S")
    rest = dict.fromkeys((9, 13, 17, 21), ("spurious", ""))
    wait_for(lambda: verdicts(run) == {**rest, 1: ("spurious", "half a sleeve"), 5: ("core", "")})
    found = Selection.load(run / "selection.json")
    assert found.shortcuts(["shirt", "pullover", "coat"]) == {"pullover": ["blue square"]}
    status(page, "5 of cluster 1: spurious. Saved.")
    assert text(page, "[data-at=clusterFacts] .value").startswith("2: ")  # the next one that is undecided
    page.keyboard.press("k")
    assert text(page, "[data-at=clusterFacts] .value").startswith("1: ")
    page.keyboard.press("Shift+C")
    status(page, "All of cluster 1 are decided")
    page.keyboard.press("j")
    assert text(page, "[data-at=clusterFacts] .value").startswith("2: ")
    page.locator("[data-term=suspicion]").focus()
    assert "where to look first" in page.locator("#hfs-tip-suspicion").inner_text()
    page.keyboard.press("Enter")
    page.locator("dialog[open] .asked dt", has_text="suspicion").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("o")
    page.locator("dialog.zoom[open]").get_by_text("This is what the model sees").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")


def test_a_note_is_kept_where_it_was_typed_until_it_is_saved(page, served):
    run, address = served
    note = page.get_by_label("Note about this candidate")
    note.fill("typed and left")
    page.locator(".thumb[data-row='9']").first.click()
    assert note.input_value() == ""
    open_page(page, address)  # the browser was closed
    assert note.input_value() == "typed and left"
    page.keyboard.press("s")
    wait_for(lambda: verdicts(run) == {1: ("spurious", "typed and left")})
    page.keyboard.press("ArrowLeft")
    note.fill("another")
    page.locator(".thumb[data-row='9']").first.click()
    wait_for(lambda: verdicts(run) == {1: ("spurious", "another")})
    status(page, "Note about candidate 1001. Saved.")
    page.keyboard.press("z")
    wait_for(lambda: verdicts(run) == {})
    status(page, "Taken back.")
    assert note.input_value() == "another"


def test_after_the_last_verdict_the_next_command_is_there(page, served):
    run, address = served
    store = DecisionStore(run)
    command = page.locator("[data-at=goOn]")
    assert not command.is_visible()
    store.decide(range(1, 24), "core")
    open_page(page, address)
    assert "nothing to train out" in command.inner_text()
    page.keyboard.press("s")
    status(page, "All decided, and saved in selection.json.")
    assert f"All decided, 1 candidate is spurious. Next:\nhf-score train {run}" in command.inner_text()


def test_many_classes_are_searched_and_listed_by_pages(browser, make):
    uvicorn = pytest.importorskip("uvicorn")
    from hf_score.review.app import build_app

    run = make(rows=280, size=8, classes=tuple(f"class of {k}" for k in range(71)), clusters=140)
    with serving(uvicorn, build_app(CandidateTable.open(run))) as address:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        open_page(page, address)
        clusters = page.locator(".cluster")
        assert clusters.count() == 60 and page.locator(".class").count() == 1
        page.get_by_role("button", name="Later").click()
        assert "cluster 61" in text(page, ".cluster")
        page.keyboard.press("/")
        page.keyboard.type("class of 64")
        page.locator("[data-at=found]", has_text="2 clusters").wait_for()
        assert page.locator(".facts .name").inner_text() == "class of 64"
        assert [clusters.nth(n).locator("small").first.inner_text() for n in range(2)] == [
            "cluster 64 · 2 candidates",
            "cluster 134 · 2 candidates",
        ]
        page.get_by_label("Search clusters").fill("1003")
        page.locator("[data-at=found]", has_text="1 cluster,").wait_for()
        page.get_by_label("Search clusters").fill("zebra")
        page.locator("[data-at=found]", has_text="no such cluster").wait_for()
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_no_width_has_to_be_scrolled(browser, served, tmp_path, scheme):
    run, address = served
    (run / "selection.json").unlink(missing_ok=True)
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.set_content("<img src='data:,'><p style='color: #999; background: #fff'>pale")
    assert len(findings(page)) >= 2  # or it would find nothing anywhere
    for place in (address, export_page(run, tmp_path / "page.html", limit=3).as_uri()):
        open_page(page, place)
        page.keyboard.press("s")
        status(page, "spurious")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            assert too_wide(page) == []
        assert findings(page) == []
    page.keyboard.press("?")
    page.locator("dialog[open]").wait_for()
    assert findings(page) == []
    context.close()


def ask(url, content=None, **headers):
    """Status, headers and body of a reply, of whatever kind it is."""
    body = None if content is None else json.dumps(content).encode()
    try:
        reply = HERE.open(Request(url, body, {"Content-Type": "application/json", **headers}), timeout=PATIENCE)
    except HTTPError as error:
        reply = error
    with reply:
        return reply.status, reply.headers, reply.read()


def test_other_pages_cannot_read_or_decide(served):
    run, address = served
    (run / "selection.json").unlink(missing_ok=True)
    change = {"session": "elsewhere", "rows": [1], "verdict": "core"}
    elsewhere = (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site"},
    )
    picture = f"pictures/{CandidateTable.open(run).key}/original/0"
    for headers in elsewhere:
        for path in ("", "data.json", "review.js", picture):
            assert ask(address + path, **headers)[0] == 403, (path, headers)
        assert ask(f"{address}decisions/decide", change, **headers)[0] == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ask(address, **link)[0] == 200 and ask(f"{address}data.json", **link)[0] == 403
    assert (
        ask(f"{address}decisions/decide", change, **{"Content-Type": "text/plain"})[0] == 422
    )  # as forms can send it
    assert verdicts(run) == {}
    assert ask(f"{address}decisions/decide", change, Origin=address.rstrip("/"))[0] == 200
    assert verdicts(run) == {1: ("core", "")}
    assert json.loads(ask(f"{address}data.json")[2])["classes"] == ["shirt", "pullover", "coat"]


def test_every_reply_has_the_strict_policy_and_no_address_leaves_the_page(served):
    run, address = served
    key = CandidateTable.open(run).key
    traps = (
        "../selection.json",
        "%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "page.html",
        "run.yaml",
        f"pictures/{key}/original/..%2f..%2fselection.json",
        f"originals/{key}/0",  # nothing says where the data set is
        f"originals/{key}/-1",
    )
    for path in ("", "data.json", "review.css", f"pictures/{key}/masked/0", *traps):
        code, headers, body = ask(address + path)
        assert (code in (404, 422)) == (path in traps), path
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert b"root:" not in body


def test_what_cannot_be_decided_is_refused_with_the_reason(served):
    run, address = served
    (run / "selection.json").unlink(missing_ok=True)
    change = {"session": "a", "rows": [1], "verdict": "core"}
    code, _, body = ask(f"{address}decisions/decide", {**change, "rows": [99]})
    assert code == 409 and "no candidate 99" in json.loads(body)["error"]
    for wrong in ({**change, "verdict": "maybe"}, {"rows": [1]}, {**change, "rows": ["x"]}, []):
        assert ask(f"{address}decisions/decide", wrong)[0] == 422
    assert verdicts(run) == {}


def test_the_browser_keeps_pictures_and_nothing_else(served):
    run, address = served
    key = CandidateTable.open(run).key
    for kind in ("original", "heatmap", "masked"):
        code, headers, body = ask(f"{address}pictures/{key}/{kind}/0?small=1")
        assert code == 200 and headers["Content-Type"] == "image/png" and body.startswith(b"\x89PNG")
        assert headers["Cache-Control"] == "private, max-age=86400, immutable"
    for path in ("", "data.json"):
        assert ask(address + path)[1]["Cache-Control"] == "no-store"
    assert ask(f"{address}pictures/{key}/masked/24")[0] == 404
    assert ask(f"{address}pictures/{key}/other/0")[0] == 422
    assert ask(f"{address}pictures/another/masked/0")[0] == 404


def test_offline_page_gives_a_selection_that_the_run_accepts(page, make, tmp_path):
    run = make()
    DecisionStore(run).decide([5], "unsure", "blurred")
    file = export_page(run, tmp_path / "page.html")
    open_page(page, file.as_uri())
    page.keyboard.press("s")
    page.keyboard.press("c")
    page.keyboard.press("z")
    page.keyboard.press("c")
    status(page, "Candidate 1009: core. Kept in this browser.")
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
