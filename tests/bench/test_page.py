"""The page: what it holds, and that it works in a browser without asking the network for anything."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derainzoo.bench.leaderboard import Result
from derainzoo.bench.page import page, reported, write_page
from pictures import picture

NAMES = [f"street/{i}" for i in range(8)]
COST = {"params": 1_000_000, "macs": 2e9, "forward_ms": 10.0, "forward_memory": 2**20, "height": 64, "width": 64}
NASTY = "</script><img src=x onerror=alert(1)>"


def result(label, gain, trained_on=("rain100l/train",), protocol="y8", folder=None, warnings=(), **more):
    """A network that is `gain` dB better than doing nothing, by a little more or less from picture to picture."""
    rng = np.random.default_rng(len(label))
    metrics = [f"psnr_{protocol}", f"ssim_{protocol}"]
    rows = []
    for i, name in enumerate(NAMES):
        rainy = 24.0 + i
        value = rainy + gain + 0.2 * rng.standard_normal()
        rows.append(
            {
                "name": name,
                "scene": name,
                metrics[0]: value,
                metrics[1]: 0.9,
                f"input_{metrics[0]}": rainy,
                f"input_{metrics[1]}": 0.8,
            }
        )
    places = {"pictures": folder / "out", "references": folder / "set"} if folder else {}
    cost = {**COST, **more}
    return Result(
        label, "elf", "best.ckpt", label, trained_on, "", "rain12", "r" * 64, protocol, warnings, cost, rows, **places
    )


def write_pictures(folder: Path) -> Path:
    for i, name in enumerate(NAMES):
        for kind in ("set/rainy", "set/clean", "out"):
            file = folder / kind / f"{name}.webp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i, 60, 80)).save(file)
    return folder


def embedded(file):
    """The data that a page carries."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.DOTALL)[1])


def some(folder=None):
    """Two networks of one training set, one of another, one of which nothing is known; two protocols."""
    return [
        result(label, gain + (protocol == "rgb"), trained, protocol, folder, warned, macs=macs)
        for protocol in ("y8", "rgb")
        for label, gain, trained, warned, macs in (
            ("small", 2.0, ("rain100l/train",), (), 1e9),
            ("large", 5.0, ("rain100l/train",), ("rain100l/train: 8 of the 12 scenes",), 1e11),
            ("elsewhere", 9.0, ("rain13k/train",), (), 1e10),
            (NASTY, 7.0, None, (), 1e10),
        )
    ]


def test_the_page_carries_everything_itself(tmp_path):
    write_page(tmp_path / "page.html", some(write_pictures(tmp_path)), {"derainzoo": "0"}, pictures=1, resamples=100)
    text = (tmp_path / "page.html").read_text()
    assert NASTY not in text
    assert not re.search(r'(?:src|href)="(?:https?:|//)', text)
    assert "@import" not in text
    assert not any(f"/*{place}*/" in text for place in ("STYLE", "SCRIPT", "DATA"))
    data = embedded(tmp_path / "page.html")
    shown = {p["name"]: p for p in data["sets"]["rain12"]["pictures"]}
    assert set(shown) == {NAMES[0], NAMES[-1]}  # PSNR grows with the number much more than it scatters
    assert shown[NAMES[0]]["why"].startswith("worst of small")
    assert shown[NAMES[-1]]["restored"]["large"].startswith("data:image/webp;base64,")
    assert len(data["pairs"]) == 2 * 6


def test_what_does_not_exist_is_null(tmp_path):
    odd = result("odd", 1.0)
    odd.rows[0]["psnr_y8"] = float("inf")
    write_page(tmp_path / "page.html", [odd], {"derainzoo": "0"}, resamples=10)
    data = embedded(tmp_path / "page.html")
    assert data["results"][0]["values"]["psnr_y8"][0] is None
    assert data["results"][0]["means"]["psnr_y8"] == pytest.approx(odd.mean("psnr_y8"), abs=1e-6)
    assert data["sets"]["rain12"]["pictures"] == []
    assert page(data)


def test_reported_numbers_have_sources_and_complete_rows():
    for table in reported():
        assert table["source"]
        assert table["url"].startswith("https://")
        assert table["protocol"]
        assert table["trained_on"]
        for name, row in table["rows"].items():
            assert len(row) == len(table["sets"]), name
            assert all(15 < psnr < 60 and 0.5 < ssim < 1 for psnr, ssim in row), name


# ---------------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    options = {"args": ["--no-sandbox", "--disable-gpu"], "executable_path": shutil.which("chromium") or None}
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(**options)
        except sync_api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def opened(browser, tmp_path):
    """The page in a browser; that nothing went wrong and nothing was fetched is looked at in the end."""
    write_page(tmp_path / "page.html", some(write_pictures(tmp_path)), {"derainzoo": "0"}, pictures=1, resamples=200)
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    wrong, asked = [], []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "page.html").as_uri())
    yield tab
    assert not wrong
    assert [url for url in asked if not url.startswith("data:")] == [(tmp_path / "page.html").as_uri()]
    tab.close()


def labels(tab):
    return [text.removesuffix("elf").strip() for text in tab.locator("#table tr.network td:nth-child(2)").all_text_contents()]


@pytest.mark.slow
def test_ranks_are_given_within_a_training_set_only(opened):
    assert labels(opened) == ["large", "small", "elsewhere", NASTY]
    assert opened.locator("#table tr.network td:first-child").all_text_contents() == ["1", "2", "1", ""]
    assert opened.locator("#table tr.group").all_text_contents()[-1] == "trained on: not stated (not ranked)"
    assert "large may have seen these scenes" in opened.locator("#warnings").text_content()
    assert opened.locator("#reported table").count() == len(reported())
    assert "DRSformer" not in opened.locator("#table").text_content()


@pytest.mark.slow
def test_the_table_sorts_by_any_column(opened):
    opened.get_by_role("button", name="MACs").click()
    assert labels(opened)[0] == "small"
    assert labels(opened)[-1] == "large"
    opened.get_by_role("button", name="MACs").click()
    assert labels(opened)[0] == "large"
    opened.get_by_role("button", name="PSNR").click()
    assert labels(opened) == ["elsewhere", NASTY, "large", "small"]
    assert opened.locator("th[aria-sort=descending]").text_content() == "PSNR"


@pytest.mark.slow
def test_charts_follow_the_protocol(opened):
    before = opened.locator("#table tr.network td:nth-child(3)").first.text_content()
    opened.select_option("#protocol", "rgb")
    after = opened.locator("#table tr.network td:nth-child(3)").first.text_content()
    assert float(after) == pytest.approx(float(before) + 1, abs=0.011)
    assert opened.locator("#pareto circle").count() == 4
    assert opened.locator("#pareto path.front").count() == 1  # only one training set has two networks
    assert opened.locator("#distributions circle").count() == 4 * len(NAMES)
    opened.select_option("#axis", "params")
    assert "parameters" in opened.locator("#pareto").text_content()
    opened.select_option("#what", "psnr_rgb:gain")
    assert opened.locator("#distributions circle").count() == 4 * len(NAMES)


@pytest.mark.slow
def test_two_networks_are_compared(opened):
    opened.select_option("#a", "large")
    opened.select_option("#b", "small")
    assert "On these pictures large is better." in opened.locator("#verdict").text_content()
    assert "8 : 0" in opened.locator("#verdict").text_content()
    opened.select_option("#a", "small")
    opened.select_option("#b", "large")
    assert "0 : 8" in opened.locator("#verdict").text_content()
    opened.select_option("#b", "elsewhere")
    assert "trained on different data" in opened.locator("#verdict").text_content()


@pytest.mark.slow
def test_the_slider_shows_before_and_after(opened):
    opened.locator("#strip button").nth(1).click()
    assert NAMES[-1] in opened.locator("#caption").text_content()
    assert opened.locator("#under").evaluate("image => image.naturalWidth") == 80
    before = opened.locator("#over").evaluate("image => image.style.clipPath")
    opened.locator("#position").focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#over").evaluate("image => image.style.clipPath") != before
    opened.select_option("#left", "clean")
    assert opened.locator("#name-left").text_content() == "clean"


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_fits_its_window(opened, width):
    opened.set_viewport_size({"width": width, "height": 800})
    opened.wait_for_timeout(300)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
