"""Where a video goes over from one scene to another: cuts, dissolves, fades through one colour.

A cut is a step that nothing explains: the pictures just before it and just after it differ more
than a threshold, and several times as much as pictures near it differ from their neighbours. The
second condition lets fast flights pass, whose every picture differs from the next; a flash passes
because the pictures on its two sides are alike. Of two cuts with one or two frames between them
only the last counts when both sides are alike. What is gradual is found by `gradual.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from longvie_cli.media.frames import Frame
from longvie_cli.media.gradual import DissolveDetector, FadeDetector, Window
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.reader import read_small_frames

# Size of the pictures that are compared: enough for colours and the large shapes.
SMALL_HEIGHT, SMALL_WIDTH = 32, 48

# Frames on each side whose steps say how much this video moves here.
_NEIGHBOURS = 6
# Frames on each side that have to differ: a flash or a passing bird is shorter.
_SIDE = 3
_LEAST_DIFFERENCE = 0.12
_LEAST_RATIO = 2.5

_GREY_BINS = 16
_COLOUR_BINS = 6


@dataclass(frozen=True)
class _Look:
    """What of a picture is compared.

    Args:
        colours: Shares of grey levels and of hues, [bins], each half sums to 1.
        shapes: Coarse picture in [0, 1], [rows, columns, 3].
    """

    colours: NDArray[np.float32]
    shapes: NDArray[np.float32]


@dataclass(frozen=True, order=True)
class SceneChange:
    """Where one scene goes over into the next; frames are counted from the first one read.

    Args:
        frame: First frame of the new scene alone: a clip that begins there begins with all of it.
        start: First frame that is not the old scene alone; of a cut the same.
        kind: How it goes over.
    """

    frame: int
    start: int
    kind: Literal["cut", "dissolve", "fade"] = "cut"


@dataclass(frozen=True)
class SceneScan:
    """What one decoding pass finds.

    Args:
        num_frames: Frames read, at the rate asked for.
        changes: Ascending; no two overlap.
    """

    num_frames: int
    changes: tuple[SceneChange, ...]


def scan_scenes(
    source: SourceVideo,
    *,
    fps: int,
    start_frame: int = 0,
    num_frames: int | None = None,
    watch: Callable[[Frame], None] | None = None,
    held_frames: int = 0,
) -> Iterator[int | SceneScan]:
    """Decode a video once, small; yield the number of frames read now and then, at last the scan.

    Memory does not grow with its length.

    Args:
        source: As `probe_video` returns it.
        fps: Rate at which frames are counted.
        start_frame: First frame looked at.
        num_frames: How many from there on; all where None.
        watch: Is shown each of the small frames, [32, 48, 3], in the same pass.
        held_frames: Look as if the last frame stayed for so many more: a dissolve with which the
            video ends is found too, its new scene beginning at its last frames or just after them.

    Raises:
        DamagedVideoError: A frame that is needed is damaged; says which can be read.
        MediaError: As `read_frames`.
    """
    count = 0
    detector = SceneDetector()
    frames = read_small_frames(
        source,
        fps=fps,
        height=SMALL_HEIGHT,
        width=SMALL_WIDTH,
        start_frame=start_frame,
        num_frames=num_frames,
    )
    last: Frame | None = None
    for frame in frames:
        detector.add(frame)
        last = frame
        if watch is not None:
            watch(frame)
        count += 1
        if count % 64 == 0:
            yield count
    if last is not None:
        for _ in range(held_frames):
            detector.add(last)
    yield SceneScan(count, detector.finish())


class SceneDetector:
    """Finds changes of scene in a stream of small frames; keeps pictures of some 150 of them."""

    def __init__(self) -> None:
        self._cuts = CutDetector()
        self._dissolves = DissolveDetector()
        self._fades = FadeDetector()
        self._cut_frames: list[int] = []
        self._dissolved: list[Window] = []
        # Fades, and whether what comes after one is another scene than before it.
        self._faded: list[tuple[Window, bool]] = []

    def add(self, frame: Frame) -> None:
        """Take the next frame, [32, 48, 3]."""
        self._cut_frames.extend(self._cuts.add(frame))
        self._dissolved += self._dissolves.add(frame)
        for fade in self._fades.add(frame):
            # A light that goes out and on again leads to no other scene.
            step = _difference(_look(fade.before), _look(fade.after))
            self._faded.append((Window(fade.old, fade.new, 0.0), step > _LEAST_DIFFERENCE))

    def finish(self) -> tuple[SceneChange, ...]:
        """Return the changes, ascending.

        A fade takes in cuts and what looks like a dissolve within it; a cut is more certain than
        what looks like a dissolve around it.
        """
        self._cut_frames.extend(self._cuts.finish())
        self._dissolved += self._dissolves.finish()
        faded = [fade for fade, leads_on in self._faded if leads_on]
        dark = [fade for fade, _ in self._faded]
        cuts = [
            cut for cut in self._cut_frames if not any(one.old < cut <= one.new for one in faded)
        ]
        dissolved = [
            one
            for one in self._dissolved
            if not any(one.old < cut <= one.new for cut in self._cut_frames)
            and not any(one.old < other.new and other.old < one.new for other in dark)
        ]
        changes = [
            *(SceneChange(cut, cut) for cut in cuts),
            *(SceneChange(one.new, one.old + 1, "dissolve") for one in dissolved),
            *(SceneChange(one.new, one.old + 1, "fade") for one in faded),
        ]
        return tuple(sorted(changes))


class CutDetector:
    """Finds cuts in a stream of small frames, `_NEIGHBOURS` frames late."""

    def __init__(self) -> None:
        self._num_frames = 0
        self._decided = 0  # Steps into frames before this one are decided.
        self._looks: deque[_Look] = deque(maxlen=2 * _NEIGHBOURS + 2)
        self._steps: deque[float] = deque(maxlen=2 * _NEIGHBOURS + 1)

    def add(self, frame: Frame) -> Iterator[int]:
        """Take the next frame, [height, width, 3], and yield the cut that it settles, if any."""
        look = _look(frame)
        if self._looks:
            self._steps.append(_difference(self._looks[-1], look))
        self._looks.append(look)
        self._num_frames += 1
        candidate = self._num_frames - 1 - _NEIGHBOURS
        if candidate >= 1:
            yield from self._decide(candidate)

    def finish(self) -> Iterator[int]:
        """Yield the cuts among the last frames."""
        for candidate in range(max(1, self._decided + 1), self._num_frames):
            yield from self._decide(candidate)

    def _decide(self, candidate: int) -> Iterator[int]:
        self._decided = candidate
        # Step k leads from frame k - 1 to frame k; the last one stored leads to the last frame.
        first_step = self._num_frames - len(self._steps)
        place = candidate - first_step
        before = list(islice(self._steps, max(0, place - _NEIGHBOURS), place))
        after = list(islice(self._steps, place + 1, place + 1 + _NEIGHBOURS))
        if self._steps[place] < _LEAST_DIFFERENCE:
            return
        usual = max(_usual(before), _usual(after))
        first_look = self._num_frames - len(self._looks)
        here = candidate - first_look
        earlier = list(islice(self._looks, max(0, here - _SIDE), here))
        later = list(islice(self._looks, here, here + _SIDE))
        across = min(_difference(one, other) for one in earlier for other in later)
        if across >= max(_LEAST_DIFFERENCE, _LEAST_RATIO * usual):
            yield candidate


def _usual(steps: list[float]) -> float:
    # The second largest: one of them may be another cut, and resampling repeats frames.
    return sorted(steps)[-2] if len(steps) > 1 else 0.0


def _difference(one: _Look, other: _Look) -> float:
    """Return how much two pictures differ, 0 to 1."""
    colours = float(np.abs(one.colours - other.colours).sum()) / 4
    shapes = float(np.abs(one.shapes - other.shapes).mean())
    return 0.5 * colours + 0.5 * min(1.0, 2 * shapes)


def _look(frame: Frame) -> _Look:
    values = frame.astype(np.float32) / np.float32(255)
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    blue, red = values[..., 2] - grey, values[..., 0] - grey
    greys = soft_histogram([grey * np.float32(_GREY_BINS)], _GREY_BINS)
    # Hues of ordinary pictures lie close to grey: the middle of the plane gets the bins.
    planes = [(plane * 2 + np.float32(0.5)) * np.float32(_COLOUR_BINS) for plane in (blue, red)]
    hues = soft_histogram(planes, _COLOUR_BINS)
    colours = np.concatenate([greys, hues])
    rows, columns = (size // 4 for size in frame.shape[:2])
    shapes = values[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4, 3).mean(axis=(1, 3))
    return _Look(colours, shapes.astype(np.float32))


def soft_histogram(places: list[NDArray[np.float32]], bins: int) -> NDArray[np.float32]:
    """Return the share of pixels in each bin of a grid with one axis for each of `places`.

    A pixel between the middles of two bins counts in both: whole pictures glide over a border in a
    slow fade, and must not jump from bin to bin.
    """
    cells = np.zeros(places[0].size, dtype=np.intp)[None]
    weights = np.ones_like(cells, dtype=np.float32)
    for place in places:
        middle = np.clip(place.ravel() - np.float32(0.5), 0, bins - 1)
        below = np.minimum(middle.astype(np.intp), bins - 2)
        above = (middle - below).astype(np.float32)
        cells = np.concatenate([cells * bins + below, cells * bins + below + 1])
        weights = np.concatenate([weights * (1 - above), weights * above])
    counted = np.bincount(cells.ravel(), weights.ravel(), minlength=bins ** len(places))
    return np.asarray(counted / places[0].size, dtype=np.float32)
