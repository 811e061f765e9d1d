"""The report in a real browser, from a phone's width to a wide screen's: nothing overflows, nobody complains."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bench_results import both_frameworks, save

from speckv.benchmarks.report.page import write
from speckv.benchmarks.report.reading import read

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no Chromium on the PATH; on Debian: apt-get install chromium, then run this again"
)

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--hide-scrollbars")
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-extensions")

MEASURE = """
const frame = document.querySelector("iframe");
const measure = async () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  await page.fonts.ready;
  const boxes = [...page.querySelectorAll(".scroll")];
  const small = [...page.querySelectorAll("p, li, td, th, dd, dt, figcaption, a, h1, h2, h3")]
    .map(one => parseFloat(view.getComputedStyle(one).fontSize));
  const canvas = page.createElement("canvas").getContext("2d");
  const ink = letter => {
    canvas.clearRect(0, 0, 80, 80);
    canvas.font = "48px " + view.getComputedStyle(page.body).fontFamily;
    canvas.fillText(letter, 4, 60);
    return canvas.canvas.toDataURL();
  };
  canvas.canvas.width = canvas.canvas.height = 80;
  const tofu = ink("\\ue123");  // for private use: no font here has a glyph for it
  const letters = [...new Set(page.body.innerText)].filter(one => one.trim());
  document.querySelector("pre").textContent = JSON.stringify({
    width: view.innerWidth,
    scroll: page.documentElement.scrollWidth,
    rightmost: Math.max(...[...page.querySelectorAll("main > *, h1, p, figure, svg, dl, .scroll")]
      .map(one => one.getBoundingClientRect().right)),
    scrolling: boxes.filter(one => one.scrollWidth > one.clientWidth).length,
    svgs: [...page.querySelectorAll("svg")].map(one => one.getBoundingClientRect().width),
    smallest: Math.min(...small),
    missing: letters.filter(one => ink(one) === tofu),
    noticed: ink("\\ue456") === tofu && ink(" ") !== tofu,
    links: [...page.querySelectorAll('nav a')].every(one => page.querySelector(one.getAttribute("href"))),
    beside: new Set([...page.querySelector(".plots").children].map(one => one.getBoundingClientRect().left)).size,
    reach: Math.max(...[...page.querySelectorAll(".scroll")].map(one => one.getBoundingClientRect().right)),
    largest: parseFloat(view.getComputedStyle(page.querySelector("main p")).fontSize),
    longest: Math.max(...[...page.querySelectorAll("section p, li, dd")].map(one => one.clientWidth)),
    loaded: view.performance.getEntriesByType("resource").length,
  });
};
frame.contentDocument.readyState === "complete" && frame.contentDocument.querySelector("main")
  ? measure() : frame.addEventListener("load", measure);
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write(read(save(both_frameworks(), folder / "r.json")), folder / "report")[0]


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    log = ("--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}")
    return subprocess.run(
        [BROWSER, *QUIET, *OFFLINE, *log, *options, page.as_uri()], capture_output=True, text=True, timeout=180
    )


def complaints(log: str) -> list[str]:
    """What the page was the reason of, among the browser's own messages."""
    return [line for line in log.splitlines() if "CONSOLE" in line or "Refused to" in line]


@pytest.mark.parametrize("width", [360, 820, 1280, 1600])
def test_the_page_fits_and_can_be_read(report: Path, tmp_path: Path, width: int) -> None:
    # In a frame, since a headless window is never narrower than 500 px; its document may be measured from outside.
    inner = html.escape(report.read_text(encoding="utf-8"))
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{inner}"></iframe>'
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"<!DOCTYPE html><meta charset=utf-8>{frame}<pre></pre><script>{MEASURE}</script>", encoding="utf-8"
    )
    size = f"--window-size={max(width, 600)},1000"
    ended = browse(outer, tmp_path / "profile", size, "--virtual-time-budget=10000", "--dump-dom")
    said = re.search(r"<pre>(\{.*?\})</pre>", ended.stdout, re.DOTALL)
    assert said, ended.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(said[1]))
    assert not complaints(ended.stderr)
    assert found["width"] == width and found["scroll"] <= width and found["rightmost"] <= width
    assert found["loaded"] == 0 and found["links"] and found["noticed"] and not found["missing"]
    assert found["smallest"] >= 14
    assert len(found["svgs"]) > 12 and min(found["svgs"]) >= 0.85 * min(width, 400)
    assert found["scrolling"] > 0 if width < 1000 else found["scrolling"] == 0
    assert found["beside"] == {360: 1, 820: 2, 1280: 2, 1600: 3}[width]
    assert found["reach"] >= 0.94 * width and found["largest"] >= 22
    assert found["longest"] <= 46 * 16


def test_a_complaint_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><script>console.error('so it is')</script>", encoding="utf-8")
    assert any("so it is" in line for line in complaints(browse(page, tmp_path / "profile", "--dump-dom").stderr))


def test_the_page_itself_is_drawn_without_a_complaint(report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    ended = browse(report, tmp_path / "profile", "--window-size=1280,2000", f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000 and not complaints(ended.stderr)
