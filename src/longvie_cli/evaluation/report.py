"""The report of an evaluation: one HTML file that needs nothing beside it but the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.evaluation.charts import Line, bar_chart, line_chart
from longvie_cli.evaluation.evaluation import Evaluation
from longvie_cli.evaluation.findings import Finding, findings
from longvie_cli.evaluation.results import as_json, clip_values, shown_values
from longvie_cli.evaluation.seams import VISIBLE_SCORE
from longvie_cli.evaluation.strips import Moment, ShownSource, moments_of
from longvie_cli.progress import printable
from longvie_cli.timeline import timecode

_TEMPLATE = Path(__file__).with_name("report.html.j2")
# What browsers play; other files are linked to, and have no player.
_PLAYED = {".mp4", ".m4v", ".webm"}
_CODECS = {"h264", "vp8", "vp9", "av1"}
# Colours of lines in the template; further videos share the last one.
_COLOURS = 6
_CLIP_COLUMNS = {
    "luma": "luma",
    "contrast": "contrast",
    "saturation": "saturation",
    "color": "colour shift",
    "sharpness": "sharpness",
    "noise": "noise",
    "motion": "motion",
    "depth_correlation": "depth corr.",
    "track_error": "track error",
    "psnr": "PSNR",
    "ssim": "SSIM",
}


@dataclass(frozen=True)
class Reported:
    """A video of a report.

    Args:
        found: What was measured.
        url: Where its file is, from the report on; empty where there is none to play.
        settings: What its run was made with, by name.
        clip_seconds: How long each clip took to make, by its index.
        source: What it was made from; None where that is not known, or was no video.
    """

    found: Evaluation
    url: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    clip_seconds: Mapping[int, float] = field(default_factory=dict)
    source: ShownSource | None = None


def plays_in_browsers(path: Path, codec: str) -> bool:
    """Return whether browsers play a file, by its name and codec."""
    return path.suffix.lower() in _PLAYED and codec in _CODECS


def write_report_html(
    videos: Sequence[Reported], *, made: str, version: str, warnings: Sequence[str]
) -> bytes:
    """Return the report as a file.

    Args:
        videos: The first is what the report is of; others are laid beside it.
        made: When, for people.
        version: Of longvie.
        warnings: What was said on the way.

    Raises:
        MediaError: A file cannot be read for its pictures.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Every text that was brought goes through here, as on a terminal.
    environment.filters["shown"] = lambda text: printable(str(text))
    environment.filters["timecode"] = timecode
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    seconds = max(video.found.seconds for video in videos)
    names = _names(videos)
    page = template.render(
        title=names[0],
        made=made,
        version=version,
        videos=[
            {"number": number, "name": name, **_video(video)}
            for number, (name, video) in enumerate(zip(names, videos, strict=True))
        ],
        table=_table(videos),
        charts=[Markup(chart) for chart in _charts(videos, names, seconds)],
        seams=Markup(_seams(videos[0].found, seconds)),
        warnings=[printable(warning) for warning in warnings],
    )
    return page.encode("utf-8", "xmlcharrefreplace")


def _names(videos: Sequence[Reported]) -> list[str]:
    """Return what the report calls its videos: without folders where that tells them apart."""
    paths = [Path(video.found.inputs.name) for video in videos]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return [printable(name) for name in names]


def _video(video: Reported) -> dict[str, Any]:
    found = video.found
    values = as_json(found)
    return {
        "url": video.url,
        "plays": plays_in_browsers(found.inputs.video.path, found.inputs.video.codec),
        "fps": found.inputs.video.fps,
        "frames": found.num_frames,
        "seconds": found.seconds,
        "size": values["size"],
        "borders": [
            {"index": clip.index, "seconds": _seek(found, clip.first_frame),
             "share": 100 * found.seconds_at(clip.first_frame) / max(found.seconds, 1e-9)}
            for clip in found.inputs.clips
        ],
        "findings": [_finding(found, finding) for finding in findings(found)],
        "columns": [name for key, name in _CLIP_COLUMNS.items() if _has(found, key)],
        "clips": _clips(video),
        "moments": _moments(found, moments_of(found, video.source)),
        "settings": {name: printable(str(value)) for name, value in _settings(video).items()},
        "methods": values["methods"],
        "skipped": values["skipped"],
    }  # fmt: skip


def _seek(found: Evaluation, frame: int) -> float:
    """Return a second at which a player shows a frame: the middle of the time it is shown."""
    return round(found.seconds_at(frame) + 0.5 / found.inputs.video.fps, 4)


def _finding(found: Evaluation, finding: Finding) -> dict[str, Any]:
    seek = None if finding.frame is None else _seek(found, finding.frame)
    return {"metric": finding.metric, "text": printable(finding.text), "seek": seek}


def _has(found: Evaluation, key: str) -> bool:
    return any(clip_values(found, clip).get(key) is not None for clip in found.inputs.clips)


def _clips(video: Reported) -> list[dict[str, Any]]:
    found = video.found
    rows = []
    for clip in found.inputs.clips:
        values = clip_values(found, clip)
        shown = [values.get(key) for key in _CLIP_COLUMNS if _has(found, key)]
        rows.append(
            {
                "index": "before" if clip.index < 0 else clip.index,
                "seek": _seek(found, clip.first_frame),
                "start": timecode(found.seconds_at(clip.first_frame)),
                "frames": clip.frames,
                "prompt": printable(clip.prompt),
                "seed": clip.seed,
                "took": video.clip_seconds.get(clip.index),
                "values": ["" if value is None else f"{value:.3g}" for value in shown],
            }
        )
    return rows


def _moments(found: Evaluation, moments: Sequence[Moment]) -> list[dict[str, Any]]:
    return [
        {
            "seek": _seek(found, moment.frame),
            "time": timecode(moment.seconds),
            "frame": moment.frame,
            "pictures": moment.pictures,
        }
        for moment in moments
    ]


def _settings(video: Reported) -> dict[str, Any]:
    return {
        name: value
        for name, value in video.settings.items()
        if value not in (None, "", [], {}) and not name.endswith(("_hash", "_hashes"))
    }


def _table(videos: Sequence[Reported]) -> dict[str, list[str]]:
    """Return what was found, a row a quantity and a column a video."""
    columns = [shown_values(video.found) for video in videos]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name, "") for column in columns] for name in names}


def _charts(videos: Sequence[Reported], names: Sequence[str], seconds: float) -> list[str]:
    first = videos[0].found
    borders = [first.seconds_at(frame) for frame in first.borders]
    charts = []
    for name, unit in (
        ("luma", "levels"),
        ("contrast", "levels"),
        ("saturation", "levels"),
        ("color", "delta E from the start"),
        ("sharpness", "levels"),
        ("noise", "levels"),
        ("motion", "pixels a frame"),
        ("depth correlation", ""),
        ("SSIM", ""),
    ):
        lines = []
        for number, video in enumerate(videos):
            series = _series(video.found, name)
            if series is not None:
                lines.append(Line(names[number], *series, min(number, _COLOURS - 1)))
        chart = line_chart(name, lines, seconds=seconds, borders=borders, unit=unit)
        if chart:
            title = f"{name}{f', {unit}' if unit else ''}"
            charts.append(f"<figure><figcaption>{title}</figcaption>{chart}</figure>")
    return charts


def _series(
    found: Evaluation, name: str
) -> tuple[NDArray[np.floating], NDArray[np.floating]] | None:
    """Return the seconds and the values of a quantity, None where it was not measured."""
    scan, pictures = found.scan, found.pictures
    if name in ("luma", "contrast", "saturation"):
        return scan.times, getattr(scan, name)
    if name in ("sharpness", "noise"):
        usable = pictures.frames < scan.num_frames
        return scan.times[pictures.frames[usable]], getattr(pictures, name)[usable]
    if name == "color" and found.colour_distances is not None:
        return scan.times, found.colour_distances
    if name == "motion":
        measured = np.isfinite(scan.flow)
        return scan.times[measured], scan.flow[measured]
    if name == "depth correlation" and found.depth is not None:
        return scan.times[found.depth.frames], found.depth.correlations
    if name == "SSIM" and found.scores is not None and found.alignment is not None:
        return found.scores.frames / found.alignment.rate, found.scores.ssim
    return None


def _seams(found: Evaluation, seconds: float) -> str:
    steps = found.steps or ()
    return bar_chart(
        "Visibility of the clip borders",
        [found.seconds_at(step.frame) for step in steps],
        [step.score for step in steps],
        seconds=seconds,
        limit=VISIBLE_SCORE,
    )
