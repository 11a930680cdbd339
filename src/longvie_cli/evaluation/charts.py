"""Charts of a report, as inline SVG; their colours come from the page: light and dark both read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from longvie_cli.timeline import timecode

_WIDTH, _HEIGHT = 480, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 12, 28
# Of more values the means of so many equal stretches are drawn.
_MOST_POINTS = 360
_NICE = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: What it is of.
        across: Seconds, ascending.
        values: Those that are not finite leave a gap.
        number: Which of the page's colours it has, from 0.
    """

    name: str
    across: NDArray[np.floating]
    values: NDArray[np.floating]
    number: int = 0


def line_chart(
    name: str,
    lines: Sequence[Line],
    *,
    seconds: float,
    borders: Sequence[float] = (),
    unit: str = "",
) -> str:
    """Return a chart of values over the time of a video; empty where there is nothing to draw.

    A click on it is a click on a second: the page reads `data-seconds`, the seconds from the left
    edge of the chart to its right edge, and `data-left` and `data-right`, those edges as shares.

    Args:
        name: What is drawn, for those who see it and those who hear it.
        lines: One or more.
        seconds: The longest of the videos.
        borders: Seconds at which clips begin, drawn as thin lines.
        unit: Of the values.
    """
    drawn = [(line, *_thinned(line.across, line.values)) for line in lines]
    finite = [values[np.isfinite(values)] for _, _, values in drawn]
    everything = np.concatenate(finite) if finite else np.zeros(0)
    if everything.size == 0 or seconds <= 0:
        return ""
    low, high, step = _range(float(everything.min()), float(everything.max()))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(second: float) -> float:
        return _LEFT + second / seconds * (right - _LEFT)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - _TOP)

    parts = [_head(name, lines, seconds, unit)]
    for value in np.arange(low, high + step / 2, step):
        parts.append(_level(float(value), y(value)))
    for second in _seconds_ticks(seconds):
        parts.append(
            f'<text class="tick" x="{x(second):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
            f"{timecode(second)[:-3]}</text>"
        )
    parts += [
        f'<line class="border" x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{_TOP}" '
        f'y2="{bottom}"/>'
        for second in borders
    ]
    for line, across, values in drawn:
        for points in _unbroken(across, values):
            shown = " ".join(f"{x(second):.1f},{y(value):.1f}" for second, value in points)
            parts.append(f'<polyline class="line s{line.number}" points="{shown}"/>')
    return "".join([*parts, "</svg>"])


def bar_chart(
    name: str, places: Sequence[float], values: Sequence[float], *, seconds: float, limit: float
) -> str:
    """Return a chart of single values at seconds of a video, with a line at a limit; empty of none.

    Args:
        name: What is drawn.
        places: Seconds, ascending.
        values: At these seconds, from 0 on.
        seconds: Length of the video.
        limit: What is above it is drawn as bad.
    """
    if not values or seconds <= 0:
        return ""
    low, high, step = _range(0.0, max(*values, limit * 1.2))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    scale = (bottom - _TOP) / (high - low)
    width = max(2.0, min(14.0, (right - _LEFT) / len(values) * 0.6))
    label = (
        f"{name}: {len(values)} values, largest {max(values):.2f} at "
        f"{timecode(places[int(np.argmax(values))])}, limit {limit:g}"
    )
    parts = [_svg(label, seconds)]
    for value in np.arange(low, high + step / 2, step):
        parts.append(_level(float(value), bottom - value * scale))
    for second in _seconds_ticks(seconds):
        place = _LEFT + second / seconds * (right - _LEFT)
        parts.append(
            f'<text class="tick" x="{place:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">'
            f"{timecode(second)[:-3]}</text>"
        )
    for second, value in zip(places, values, strict=True):
        place = _LEFT + second / seconds * (right - _LEFT)
        kind = "bar bad" if value > limit else "bar"
        parts.append(
            f'<rect class="{kind}" x="{place - width / 2:.1f}" y="{bottom - value * scale:.1f}" '
            f'width="{width:.1f}" height="{value * scale:.1f}">'
            f"<title>{timecode(second)}: {value:.2f}</title></rect>"
        )
    level = bottom - limit * scale
    parts.append(
        f'<line class="limit" x1="{_LEFT}" x2="{right}" y1="{level:.1f}" y2="{level:.1f}"/>'
    )
    return "".join([*parts, "</svg>"])


def _level(value: float, height: float) -> str:
    """Return a line across the chart and what it stands for."""
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" '
        f'y2="{height:.1f}"/><text class="tick" x="{_LEFT - 6}" y="{height + 4:.1f}" '
        f'text-anchor="end">{value:.4g}</text>'
    )


def _head(name: str, lines: Sequence[Line], seconds: float, unit: str) -> str:
    said = []
    for line in lines:
        values = line.values[np.isfinite(line.values)]
        if len(values):
            said.append(f"{line.name} from {values[0]:.4g} to {values[-1]:.4g}")
    return _svg(
        f"{name}{f' ({unit})' if unit else ''} over {seconds:.1f} s: {'; '.join(said)}", seconds
    )


def _svg(label: str, seconds: float) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label, quote=True)}" data-seconds="{seconds:.4f}" '
        f'data-left="{_LEFT / _WIDTH:.5f}" data-right="{(_WIDTH - _RIGHT) / _WIDTH:.5f}">'
    )


def _thinned(
    across: NDArray[np.floating], values: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    if len(values) <= _MOST_POINTS:
        return across, values
    edges = np.linspace(0, len(values), _MOST_POINTS + 1).astype(int)
    usable = np.isfinite(values)
    counts = np.add.reduceat(usable.astype(float), edges[:-1])
    total = np.add.reduceat(np.where(usable, values, 0).astype(float), edges[:-1])
    means = np.divide(total, counts, out=np.full(len(total), np.nan), where=counts > 0)
    return np.add.reduceat(across, edges[:-1]) / np.diff(edges), means


def _unbroken(
    across: NDArray[np.floating], values: NDArray[np.floating]
) -> Iterator[list[tuple[float, float]]]:
    points: list[tuple[float, float]] = []
    for second, value in zip(across.tolist(), values.tolist(), strict=True):
        if math.isfinite(value):
            points.append((second, value))
        elif points:
            yield points
            points = []
    if points:
        yield points


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Return the ends of an axis and the step between its lines, round numbers all."""
    if high - low < 1e-6 + 0.02 * abs(high):
        # What hardly changes is drawn as hardly changing.
        middle, half = (low + high) / 2, max(0.05, 0.1 * abs(high))
        low, high = middle - half, middle + half
    rough = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in _NICE if nice * power >= rough)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _seconds_ticks(seconds: float) -> list[float]:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)
    step = next((step for step in steps if seconds / step <= 7), steps[-1])
    return [float(second) for second in np.arange(0, seconds + 1e-9, step)]
