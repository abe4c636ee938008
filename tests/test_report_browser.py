"""The page in a real browser: nothing runs, nothing is fetched, everything can be reached."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import resign
from PIL import Image
from test_report import HOSTILE, an_arm, an_evaluation, an_outcome, hostile_outcome, with_generated

import augkit as ak
from augkit.reports.page import write_page
from augkit.store import DatasetStore

pytestmark = pytest.mark.seconds

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the browser is not tested: playwright is not installed"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
if CHROMIUM is None:
    pytest.skip("the browser is not tested: there is no chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a page with everything on it, and with names that try to run."""
    folder = tmp_path_factory.mktemp("report")
    outcome = hostile_outcome()
    long = an_evaluation("x" * 300)
    long["arms"] += [an_arm(f"arm {k}", 0.6) for k in range(8)]
    outcome["cells"] += an_outcome(long, an_evaluation(word="hurts"), dataset="BUSI")["cells"]
    path = write_page(outcome, with_generated(folder).snapshot(), folder / "report.html")
    return path.as_uri()


class Visit:
    """A page that was opened, with all that it asked for and said."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.context = browser.new_context(**how)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.goto(address)

    def _dialog(self, dialog: Any) -> None:
        self.said.append(dialog.message)
        dialog.dismiss()

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def active(self, what: str) -> Any:
        """Return a property of the element that has the focus."""
        return self.page.evaluate(f"document.activeElement.{what}")


@pytest.mark.parametrize("forbidding", [True, False], ids=["as it is", "without its policy"])
def test_names_do_not_run_and_nothing_is_fetched(
    browser: Any, report: str, forbidding: bool
) -> None:
    with Visit(browser, report, bypass_csp=not forbidding) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        visit.page.wait_for_load_state("networkidle")
        fetched = [url for url in visit.requests if not url.startswith("data:")]
        assert fetched == [report]
        assert visit.said == []
        assert HOSTILE[0] in visit.page.inner_text("body")
        assert visit.page.locator("script").count() == 0


@pytest.fixture(scope="module")
def report_of_hostile_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a page about a store whose every name tries to run."""
    folder = tmp_path_factory.mktemp("hostile")
    marked = HOSTILE[:3]
    store = DatasetStore.create(folder / "a.store", height=24, width=32)
    labels = [name for name in marked for _ in range(12)]
    pixels = np.random.default_rng(0).integers(0, 256, (36, 24, 32, 1), np.uint8)
    ak.ingest_arrays(
        store, [pixels], labels, keys=[f"{name}/{i}" for i, name in enumerate(labels)],
        groups=[f"g{name}{i}" for i, name in enumerate(labels)], dataset="x" + marked[2],
    )  # fmt: skip
    ak.augment(store, "oracle", n=2, workers=1)
    store.close()
    resign(store.path, _rename_run)
    outcome = hostile_outcome()
    for cell in filter(lambda cell: cell["evaluation"], outcome["cells"]):
        cell["evaluation"]["classes"] = marked
        for arm, name in zip(cell["evaluation"]["arms"], HOSTILE, strict=False):
            arm.update(name=name, runs=[HOSTILE[1]])
    path = write_page(outcome, ak.open(store.path).snapshot(), folder / "report.html")
    return path.as_uri()


def _rename_run(number: int, entry: dict[str, Any]) -> None:
    if entry["kind"] == "run":
        entry["run"] = HOSTILE[1]


def test_names_in_a_store_do_not_run_either(browser: Any, report_of_hostile_store: str) -> None:
    with Visit(browser, report_of_hostile_store, bypass_csp=True) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        visit.page.wait_for_load_state("networkidle")
        fetched = [url for url in visit.requests if not url.startswith("data:")]
        assert fetched == [report_of_hostile_store]
        assert visit.said == []
        assert visit.page.locator("script").count() == 0
        shown = visit.page.inner_text("body")
        assert all(name in shown for name in HOSTILE[:3]), "classes"
        assert f"made by run {HOSTILE[1]}" in shown
        assert f"{HOSTILE[0]}/0" not in shown, "keys are not on the page; else they belong here"


def test_a_name_that_runs_would_be_seen(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<script>alert('x')</script><img src='http://127.0.0.1:9/x'>")
    with Visit(browser, (tmp_path / "a.html").as_uri()) as visit:
        assert "x" in visit.said
        assert len(visit.requests) == 2


def test_the_keyboard_reaches_the_skip_link_and_all_that_opens(browser: Any, report: str) -> None:
    with Visit(browser, report) as visit:
        visit.page.keyboard.press("Tab")
        assert visit.active("className") == "skip"
        assert visit.active("getBoundingClientRect().left") > 0
        visit.page.keyboard.press("Enter")
        visit.page.wait_for_url(lambda url: url.endswith("#verdict"))
        assert visit.page.url.endswith("#verdict")
        found = reached(visit)
        assert found.count("SUMMARY") == visit.page.locator("summary").count() > 20
        assert found.count("DIV") >= 5  # tables that scroll
        summary = visit.page.locator("summary").first
        summary.focus()
        outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        before = visit.active("parentElement.open")
        visit.page.keyboard.press("Enter")
        assert visit.active("parentElement.open") is not before
        assert outline == "solid"


def reached(visit: Visit) -> list[str]:
    """Return the tags of all elements that Tab reaches, in order."""
    tags = []
    for _ in range(400):
        visit.page.keyboard.press("Tab")
        if visit.active("tagName") == "BODY":
            break
        tags.append(visit.active("tagName"))
    return tags


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(browser: Any, report: str, width: int) -> None:
    with Visit(browser, report, viewport={"width": width, "height": 800}) as visit:
        for opened in ("false", "true"):
            visit.page.evaluate(
                f"document.querySelectorAll('details').forEach(d => d.open = {opened})"
            )
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def picture(visit: Visit) -> np.ndarray:
    """Return the visible part of the page: uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(visit.page.screenshot())) as image:
        return np.array(image.convert("RGB"))


def test_light_dark_and_print_show_something(browser: Any, report: str) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        with Visit(browser, report, color_scheme=scheme) as visit:
            seen[scheme] = picture(visit)
            visit.page.emulate_media(media="print")
            seen[f"{scheme}, printed"] = picture(visit)
    assert all(len(np.unique(image)) > 50 for image in seen.values())
    light, dark = float(np.median(seen["light"])), float(np.median(seen["dark"]))
    assert light > 240 and dark < 40
    assert np.median(seen["dark, printed"]) == 255  # paper is white


def test_what_is_closed_on_screen_is_printed(browser: Any, report: str) -> None:
    closed = (
        "[...document.querySelectorAll('details:not([open]) td')].map(e => e.checkVisibility())"
    )
    with Visit(browser, report) as visit:
        shown = visit.page.evaluate(closed)
        assert len(shown) > 100 and not any(shown)
        visit.page.emulate_media(media="print")
        assert all(visit.page.evaluate(closed))
        assert visit.page.pdf().startswith(b"%PDF")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser: Any, report: str, scheme: Any) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    with Visit(browser, report, color_scheme=scheme) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        visit.page.evaluate(script)
        found = visit.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        faults = [(f["id"], f["help"], f["nodes"][0]["html"][:200]) for f in found["violations"]]
        assert faults == []
        assert len(found["passes"]) > 15
