"""The page in a real browser: what somebody with a wet picture does, and what can go wrong."""

import base64
import shutil
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from derainzoo.images import read_stored, write_png
from pictures import picture
from web_server import Inverse, serving

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as started:
        try:
            chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"needs Chromium: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, ask, **options):
    """The page; whatever it asks of another address, and every error in its scripts, fails the test."""
    context = browser.new_context(**options)
    page = context.new_page()
    wrong = []
    page.on("request", lambda r: r.url.startswith((ask.server.address, "blob:", "data:")) or wrong.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("console", lambda m: "Content Security Policy" in m.text and wrong.append(m.text))
    page.goto(ask.server.address)
    page.wait_for_selector("#strip button")
    yield page
    context.close()
    assert not wrong


@pytest.fixture
def wet(tmp_path):
    write_png(tmp_path / "my wet ü photo.png", picture(5, 60, 90))
    return tmp_path / "my wet ü photo.png"


def at(page):
    return int(page.get_attribute("#figure", "aria-valuenow"))


def until(condition):
    """Playwright's own way would have the page evaluate strings, which its policy forbids."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("this never came true")


def settled(page):
    page.wait_for_selector("#download", state="visible")
    until(lambda: at(page) == 50)


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desktop", "phone"])
def test_upload_slide_download(browser, wet, tmp_path, options):
    with serving() as ask, opened(browser, ask, **options) as page:
        page.set_input_files("#file", wet)
        settled(page)
        assert not page.is_visible("#error")
        assert "90 × 60" in page.inner_text("#facts")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing hangs out at the side

        # the slider follows the pointer and the keys, and uncovers the restored picture
        box = page.locator("#figure").bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.5, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.2, middle, steps=4)
        assert abs(at(page) - 20) <= 1
        page.mouse.move(box["x"] - 500, middle)
        page.mouse.up()
        assert at(page) == 0
        page.mouse.move(box["x"] + box["width"] * 0.7, middle)  # nothing is held
        assert at(page) == 0
        assert page.evaluate("getComputedStyle(document.querySelector('.wet')).clipPath").startswith("inset(0px 100%")
        page.focus("#figure")
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        assert at(page) == 96

        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == "my wet ü photo-dry.png"
        download.value.save_as(tmp_path / "dry.png")
        assert np.array_equal(read_stored(tmp_path / "dry.png").pixels, 255 - read_stored(wet).pixels)

        page.click("#again")
        assert page.is_visible("#open")
        assert not page.is_visible("#work")


def test_an_example_and_another_network(browser):
    with serving() as ask, opened(browser, ask) as page:
        page.click("#strip button >> nth=1")
        settled(page)
        page.select_option("#network", "fails")  # the same picture goes through it
        page.wait_for_selector("#error", state="visible")
        assert "the terminal in which derainzoo runs says what" in page.inner_text("#message")
        page.click("#dismiss")
        assert not page.is_visible("#error")


def test_dropped_and_pasted_pictures(browser, wet):
    event = """([name, data]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], "x.png", {type: "image/png"}));
        const init = {bubbles: true, cancelable: true, [name === "drop" ? "dataTransfer" : "clipboardData"]: transfer};
        document.body.dispatchEvent(name === "drop" ? new DragEvent(name, init) : new ClipboardEvent(name, init));
    }"""
    with serving() as ask, opened(browser, ask) as page:
        for name in ("drop", "paste"):
            page.evaluate(event, [name, base64.b64encode(wet.read_bytes()).decode()])
            settled(page)
            page.click("#again")


def test_what_is_wrong_is_said_in_the_page(browser, wet, tmp_path):
    broken, large, empty = tmp_path / "broken.png", tmp_path / "large.jpg", tmp_path / "empty.png"
    broken.write_bytes(wet.read_bytes()[:-300])
    large.write_bytes(bytes(2_500_000))
    empty.touch()
    with serving() as ask, opened(browser, ask, **PHONE) as page:
        for file, text in (
            (broken, "broken.png: damaged PNG picture"),
            (large, "large.jpg has 2.5 MB; up to 1.0 MB are taken here."),
            (empty, "empty.png is empty."),
        ):
            page.set_input_files("#file", file)
            until(lambda text=text: text in page.inner_text("#message"))
            assert page.is_visible("#open")  # ready for another one
        page.set_input_files("#file", wet)
        settled(page)
        assert not page.is_visible("#error")


def test_waiting_leaving_and_a_server_that_is_gone(browser, wet):
    gate = threading.Event()
    with serving(Inverse(gate), places=1) as ask, opened(browser, ask) as page:
        page.set_input_files("#file", wet)
        until(lambda: "Taking the rain away" in page.inner_text("#saying"))
        assert not page.is_visible("#download")
        with opened(browser, ask) as other:
            other.set_input_files("#file", wet)
            other.wait_for_selector("#error", state="visible")
            assert "Others were faster" in other.inner_text("#message")
        page.click("#again")
        gate.set()
        page.wait_for_timeout(400)
        assert not page.is_visible("#work")  # nothing comes after one has left
        page.route("**/pictures?*", lambda route: route.abort())
        page.set_input_files("#file", wet)
        page.wait_for_selector("#error", state="visible")
        assert "does not answer" in page.inner_text("#message")
