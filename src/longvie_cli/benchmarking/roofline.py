"""The roofline picture: how fast each stage was, under how fast this machine can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from longvie_cli.benchmarking.report import EngineResult

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 190, 40, 60
_COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2")
_MARKS = {
    "self_attention": "A",
    "cross_attention": "X",
    "ffn": "F",
    "control_branches": "C",
    "glue": "G",
}


class _Axis:
    """Places values of a range on a logarithmic line."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self._begin, self._end = begin, end

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self._begin + share * (self._end - self._begin)

    @property
    def decades(self) -> Iterator[float]:
        return (10.0**power for power in range(self.low, self.high + 1))


def roofline_svg(
    results: Sequence[EngineResult], moved: Mapping[str, Mapping[str, int]], title: str
) -> str:
    """Return the picture as SVG.

    Args:
        results: Of each engine.
        moved: By engine and stage, the fewest bytes of a clip (`flops.evaluation_bytes`).
        title: What was measured.
    """
    points = [
        (number, stage, result.flops[stage] / moved[result.engine][stage], rate)
        for number, result in enumerate(results)
        for stage in _MARKS
        if (rate := result.rate(stage)) is not None
    ]
    ridges = [result.roof.flops_per_second / result.roof.bytes_per_second for result in results]
    across = _Axis([*(point[2] for point in points), *ridges], _LEFT, _WIDTH - _RIGHT)
    upwards = _Axis(
        [*(point[3] for point in points), *(result.roof.flops_per_second for result in results)],
        _HEIGHT - _BOTTOM,
        _TOP,
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
            *_grid(across, upwards),
            *(line for number, result in enumerate(results)
              for line in _roof(number, result, across, upwards)),
            *(line for point in points for line in _point(*point, across, upwards)),
            *_legend(results),
            "</svg>",
            "",
        )
    )  # fmt: skip


def _grid(across: _Axis, upwards: _Axis) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in across.decades:
        x = across.place(value)
        yield f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#ddd"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
    for value in upwards.decades:
        y = upwards.place(value)
        yield f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_rate(value)}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text x="{middle}" y="{bottom + 38}" text-anchor="middle">operations a byte</text>'
    yield f'<text x="{_LEFT}" y="{_TOP - 6}">operations a second</text>'


def _rate(value: float) -> str:
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def _roof(number: int, result: EngineResult, across: _Axis, upwards: _Axis) -> Iterator[str]:
    peak, speed = result.roof.flops_per_second, result.roof.bytes_per_second
    # Where memory is the limit the line leaves the picture at its left or at its bottom.
    begin = max(10.0**across.low, 10.0**upwards.low / speed)
    corners = ((begin, begin * speed), (peak / speed, peak), (10.0**across.high, peak))
    places = (f"{across.place(x):.1f} {upwards.place(y):.1f}" for x, y in corners)
    yield (
        f'<path d="M{"L".join(places)}" fill="none" '
        f'stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.5"/>'
    )


def _point(
    number: int, stage: str, intensity: float, rate: float, across: _Axis, upwards: _Axis
) -> Iterator[str]:
    x, y = across.place(intensity), upwards.place(rate)
    colour = _COLOURS[number % len(_COLOURS)]
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="9" fill="{colour}" fill-opacity="0.85"/>'
    style = 'text-anchor="middle" fill="white"'
    yield f'<text x="{x:.1f}" y="{y + 4:.1f}" {style}>{_MARKS[stage]}</text>'


def _legend(results: Sequence[EngineResult]) -> Iterator[str]:
    x, y = _WIDTH - _RIGHT + 20, _TOP + 10
    for number, result in enumerate(results):
        colour = _COLOURS[number % len(_COLOURS)]
        yield f'<circle cx="{x}" cy="{y - 4}" r="6" fill="{colour}"/>'
        yield f'<text x="{x + 12}" y="{y}">{escape(result.engine)}</text>'
        y += 18
    y += 10
    for stage, mark in _MARKS.items():
        yield f'<text x="{x}" y="{y}">{mark}  {stage.replace("_", " ")}</text>'
        y += 18
