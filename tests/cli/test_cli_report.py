"""The report of `longvie evaluate`: one page, self-contained, that seeks where it is clicked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delivered import QUICK
from longvie_cli.run_folder.manifest import write_manifest
from longvie_cli.timeline import ClipGeometry, plan_clips
from made_frames import changed, sliding, write
from sounds import run_ffmpeg
from stored_runs import stored_manifest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class _Page(HTMLParser):
    """Every tag of a page with its attributes, and how deep tags are open at the end."""

    _ALONE = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self._ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def test_a_report_stands_alone_and_says_everything_twice(longvie, tmp_path: Path) -> None:
    frames = sliding(60)
    frames[30:] = changed(frames[30:], 25)
    write(tmp_path / "a b#1.mp4", frames)
    write(tmp_path / "other.mp4", sliding(40))
    outcome = longvie(
        *("evaluate", "a b#1.mp4", "--compare", "other.mp4", "--reference", "other.mp4"),
        *("--report", "reports/r.html"),
    )
    assert (outcome.code, outcome.out) == (0, "reports/r.html\n"), outcome.err
    assert "a jump at frame 30" in outcome.err
    text = (tmp_path / "reports" / "r.html").read_text()
    page = _Page(text)
    assert page.open == []
    # Nothing but the videos, which lie beside it, is taken from anywhere.
    sources = [str(tag[key]) for _, tag in page.tags for key in ("src", "href") if tag.get(key)]
    videos = [str(video["src"]) for video in page.all("video")]
    assert videos == ["../a%20b%231.mp4", "../other.mp4"]
    assert all(source in videos or source.startswith(("data:", "#")) for source in sources), sources
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    # What is to be seen can be heard.
    assert all(image.get("alt") for image in page.all("img"))
    charts = [tag for tag in page.all("svg")]
    assert len(charts) >= 7 and all(tag.get("aria-label") for tag in charts)
    assert all(tag.get("controls", "no") is None for tag in page.all("video"))
    assert {"reference at 0:00.00", "output at 0:00.00"} <= {i["alt"] for i in page.all("img")}
    seeks = [float(str(tag["data-seek"])) for tag in page.all("button")]
    assert pytest.approx(30.5 / 16, abs=1e-3) in seeks
    assert str(tmp_path) not in text
    again = longvie("evaluate", "other.mp4", "--report", "reports/r.html")
    assert (again.code, "exists" in again.err) == (4, True)
    made = longvie("evaluate", "other.mp4", "--report", "reports/r.html", "--overwrite", "--json")
    assert (made.code, made.fields["report"]) == (0, "reports/r.html")
    assert longvie("evaluate", "other.mp4", "--report", "r.pdf").code == 2


def test_a_report_of_ours_has_its_controls_settings_and_times(longvie, tmp_path: Path) -> None:
    prompt = "<script>alert(1)</script> & \x1b[2J hills"
    made = longvie(*("generate", "-p", prompt, "--seconds", "1", *QUICK, "-o", "ours.mp4"))
    assert made.code == 0, made.err
    assert longvie("evaluate", "ours.mp4", "--report", "r.html").code == 0
    text = (tmp_path / "r.html").read_text()
    page = _Page(text)
    assert len(page.all("script")) == 1 and "\x1b" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\x1b[2J hills" in text
    kinds = {str(image["alt"]).split()[0] for image in page.all("img")}
    assert kinds == {"depth", "tracks", "output"}
    assert "<dt>preset</dt><dd>tiny</dd>" in text and re.search(r"\d+\.\d s</td>", text)
    labels = [str(tag.get("aria-label")) for tag in page.all("button")]
    assert [label for label in labels if label.startswith("Clip")][:2] == [
        "Clip 0, 0:00.03",
        "Clip 1, 0:00.59",
    ]


def test_generate_writes_the_report_of_what_it_made(longvie, tmp_path: Path) -> None:
    command = ("generate", "-p", "hills", "--seconds", "0.5", *QUICK, "-o", "ours.mp4")
    made = longvie(*command, "--report", "r.html", "--json")
    assert made.code == 0, made.err
    assert (made.fields["output"], made.fields["report"]) == ("ours.mp4", "r.html")
    first = (tmp_path / "r.html").read_text()
    assert "<dt>preset</dt><dd>tiny</dd>" in first
    again = longvie(*command, "--report", "r.html")
    assert (again.code, again.out) == (0, "ours.mp4\n"), "the same command again renews it"
    (tmp_path / "mine.html").write_text("<p>mine")
    for report, code in (
        ("mine.html", 4),
        ("ours.mp4", 2),
        ("ours.longvie/controls/r.html", 2),
        ("r.txt", 2),
    ):
        refused = longvie(*command, "--report", report)
        assert refused.code == code and "--report" in refused.err + report, refused.err
        assert longvie(*command, "--report", report, "--dry-run").code == code
    assert (tmp_path / "mine.html").read_text() == "<p>mine"


def test_no_input_and_no_run_is_replaced_by_a_report(longvie, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", sliding(10))
    (tmp_path / "page.html").symlink_to("a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    assert longvie("evaluate", "a.mp4", "--report", "page.html", "--overwrite").code == 2
    assert longvie("evaluate", "a.mp4", "--report", "a.longvie/clips/r.html").code == 2
    assert (tmp_path / "a.mp4").read_bytes() == before


@contextmanager
def _served(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    """Serve a folder with byte ranges; what the page posts ends up in the list."""
    posted: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = (folder / self.path.lstrip("/")).read_bytes()
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first, last = 0, len(data) - 1
            if span:
                first, last = int(span[1]), int(span[2] or last)
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Accept-Ranges", "bytes")
            kind = "text/html" if self.path.endswith("html") else "video/mp4"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            self.wfile.write(data[first : last + 1])

        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        server.server_close()


# Clicks the marks of the clips one by one, then a chart, then keys, and says what is shown.
PROBE = """
<script>
const tell = (said) => fetch("/said", {method: "POST", body: JSON.stringify(said)});
(async () => {
  const errors = window.seenErrors, shown = [];
  const video = document.querySelector("video");
  const wait = (name) => new Promise((done) => video.addEventListener(name, done, {once: true}));
  if (video.readyState < 2) await wait("loadeddata");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d");
  const look = async (act) => {
    const seeked = wait("seeked");
    act();
    await seeked;
    await new Promise((done) => setTimeout(done, 60));
    pen.drawImage(video, 0, 0, 1, 1);
    shown.push({level: pen.getImageData(0, 0, 1, 1).data[0], at: video.currentTime});
  };
  for (const mark of document.querySelectorAll(".clips [data-seek]"))
    await look(() => mark.click());
  const chart = document.querySelector(".chart"), box = chart.getBoundingClientRect();
  const left = Number(chart.dataset.left), right = Number(chart.dataset.right);
  const middle = box.left + box.width * (left + right) / 2;
  await look(() => chart.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: middle})));
  for (const key of [".", ",", "p", "n"])
    await look(() => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})));
  const wide = document.documentElement.scrollWidth > window.innerWidth;
  tell({errors, shown, wide});
})().catch((error) => tell({failed: String(error)}));
</script>
"""
WATCH = """
<script>
window.seenErrors = [];
for (const name of ["error", "unhandledrejection", "securitypolicyviolation"])
  window.addEventListener(name, (event) => window.seenErrors.push(name + " " + event.type), true);
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_a_click_goes_to_the_right_frame(longvie, tmp_path: Path, width: int) -> None:
    # The level of a frame says which one it is; the run folder beside it says where clips begin.
    levels = (np.arange(80) * 2.8 + 20).round().astype(np.uint8)
    flat = np.broadcast_to(levels[:, None, None, None], (80, 112, 192, 3))
    write(tmp_path / "a.mp4", flat, crf=4)
    (tmp_path / "a.longvie").mkdir()
    plan = plan_clips(ClipGeometry(33, 16), 80)
    write_manifest(tmp_path / "a.longvie" / "run.json", stored_manifest(plan))
    assert longvie("evaluate", "a.mp4", "--report", "r.html").code == 0
    text = (tmp_path / "r.html").read_text()
    # The page itself may ask nothing; the probe may tell.
    text = text.replace("default-src 'none';", "default-src 'none'; connect-src 'self';")
    text = text.replace("<title>", WATCH + "<title>").replace("</body>", PROBE + "</body>")
    (tmp_path / "probe.html").write_text(text)
    assert CHROMIUM is not None
    with _served(tmp_path) as (address, posted):
        browser = subprocess.Popen(
            [
                *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--mute-audio"),
                *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"),
                *("--remote-debugging-port=0", f"{address}/probe.html"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(300):
                if posted:
                    break
                threading.Event().wait(0.1)
        finally:
            browser.kill()
            browser.wait()
    (said,) = posted
    assert "failed" not in said, said
    assert said["errors"] == [] and said["wide"] is False
    frames = [round((look["level"] - 20) / 2.8) for look in said["shown"]]
    # Marks of three clips; the middle of the chart; a frame on and back; clip before, clip after.
    assert frames[:3] == [0, 33, 65]
    assert abs(frames[3] - 40) <= 1
    assert frames[4:] == [frames[3] + 1, frames[3], 33, 65]


def test_a_codec_that_browsers_do_not_play_gets_no_player(longvie, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", sliding(10))
    run_ffmpeg("-i", tmp_path / "a.mp4", "-c:v", "mpeg4", tmp_path / "old.mp4")
    assert longvie("evaluate", "old.mp4", "--report", "r.html").code == 0
    text = (tmp_path / "r.html").read_text()
    assert _Page(text).all("video") == []
    assert 'href="old.mp4"' in text


def test_a_link_is_called_by_its_own_name(longvie, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    write(tmp_path / "private" / "a.mp4", sliding(10))
    (tmp_path / "shown.mp4").symlink_to(tmp_path / "private" / "a.mp4")
    assert longvie("evaluate", "shown.mp4", "--report", "r.html").code == 0
    text = (tmp_path / "r.html").read_text()
    assert [video["src"] for video in _Page(text).all("video")] == ["shown.mp4"]
    assert "private" not in text
