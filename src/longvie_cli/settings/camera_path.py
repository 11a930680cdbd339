"""Camera paths in words or keyframes: `forward 2, turn 30 in 10s, orbit`.

    path  = group , group , ...           one after another
    group = move + move + ... [in TIME]   at the same time
    move  = forward|back|left|right|up|down [DISTANCE]
          | turn|tilt|orbit [left|right|up|down] [DEGREES] | hold [SECONDS]

1 is the median depth of the first frame. Degrees above 0 turn right, tilt up, and orbit to the
right around the point 1 ahead. A last group without `in` goes on to the end of the video (a tilt
stops at its angle). Poses are relative to the first frame. How such a path is flown:
`worlds/camera_motion.py`.
"""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from longvie_cli.disk.documents import (
    MAX_YAML_BYTES,
    briefly,
    decoded,
    parse_json,
    parse_yaml,
    read_document,
)
from longvie_cli.errors import LongVieError, SettingsError, UsageError
from longvie_cli.settings.prompts import parse_time

GRAMMAR = (
    "Moves: forward, back, left, right, up, down [DISTANCE], turn, tilt, orbit [DEGREES], "
    "hold [SECONDS]; each may end with `in 4s`; `,` is then, `+` is at the same time."
)

# What a small move takes where no time is given.
_SHORTEST_SECONDS = 0.5
_MAX_PITCH = 80.0
_KEYFRAMES_PREFIX = "keyframes "
# Beyond, a distance or time is a slip of the pen.
_LARGEST_NUMBER = 100_000.0
_LONGEST_WORDS = 20_000

BodyAxes = tuple[float, float, float, float, float]
"""Of a moving camera: right, up and forward in units, yaw and pitch in degrees."""


class CameraPose(NamedTuple):
    """Where the camera is, from the first frame's point of view.

    `right`, `up` and `forward` are in median depths, level with the ground; the angles in degrees:
    yaw above 0 to the right, pitch above 0 up (added to the first frame's own), roll clockwise.
    """

    right: float = 0.0
    up: float = 0.0
    forward: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


class _Kind(NamedTuple):
    """What a word means: change of right, up, forward, yaw, pitch for an amount of 1."""

    per_amount: BodyAxes
    default_amount: float
    default_speed: float
    # Words that give the amount its sign; none for moves whose word is the direction.
    sides: tuple[str, str] | tuple[()] = ()
    # What captions call it, for an amount above and below 0.
    phrases: tuple[str, str] = ("flying forward", "flying forward")


_DISTANCE_SPEED = 0.25
_TURN_SPEED = 15.0
# An orbit of radius 1 to the right: as far along its circle as it turns to the left.
_ARC = math.radians(1.0)
_KINDS = {
    "forward": _Kind((0, 0, 1, 0, 0), 1.0, _DISTANCE_SPEED, (), ("flying forward",) * 2),
    "back": _Kind((0, 0, -1, 0, 0), 1.0, _DISTANCE_SPEED, (), ("flying backward",) * 2),
    "left": _Kind((-1, 0, 0, 0, 0), 1.0, _DISTANCE_SPEED, (), ("gliding left",) * 2),
    "right": _Kind((1, 0, 0, 0, 0), 1.0, _DISTANCE_SPEED, (), ("gliding right",) * 2),
    "up": _Kind((0, 1, 0, 0, 0), 0.5, _DISTANCE_SPEED / 2, (), ("climbing",) * 2),
    "down": _Kind((0, -1, 0, 0, 0), 0.5, _DISTANCE_SPEED / 2, (), ("descending",) * 2),
    "turn": _Kind(
        (0, 0, 0, 1, 0), 45.0, _TURN_SPEED, ("right", "left"), ("turning right", "turning left")
    ),
    "tilt": _Kind((0, 0, 0, 0, 1), 15.0, 10.0, ("up", "down"), ("looking up", "looking down")),
    "orbit": _Kind(
        (_ARC, 0, 0, -1, 0),
        360.0,
        _TURN_SPEED,
        ("right", "left"),
        ("orbiting right", "orbiting left"),
    ),
    "hold": _Kind((0, 0, 0, 0, 0), 2.0, 1.0, (), ("hovering",) * 2),
}
_OTHER_WORDS = {
    "forwards": "forward",
    "ahead": "forward",
    "backward": "back",
    "backwards": "back",
    "climb": "up",
    "rise": "up",
    "descend": "down",
    "pan": "turn",
    "yaw": "turn",
    "look": "turn",
    "pitch": "tilt",
    "stay": "hold",
    "wait": "hold",
}
_NUMBER = re.compile(r"^[+-]?(?:\d+(?:\.\d*)?|\.\d+)$")
_AMOUNT_UNITS = ("degrees", "degree", "deg", "\N{DEGREE SIGN}", "s")


@dataclass(frozen=True)
class Move:
    """One word of a path and how much of it: units, degrees, or seconds of a hold."""

    word: str
    amount: float

    def __str__(self) -> str:
        return f"{self.word} {_plain(self.amount)}"

    @property
    def change(self) -> BodyAxes:
        """How far the camera is moved and turned by it."""
        right, up, forward, yaw, pitch = (
            self.amount * axis for axis in _KINDS[self.word].per_amount
        )
        return right, up, forward, yaw, pitch


@dataclass(frozen=True)
class MoveGroup:
    """Moves made at the same time.

    Args:
        moves: At least one.
        seconds: How long they take.
        open_ended: They go on after that, at the same pace.
    """

    moves: tuple[Move, ...]
    seconds: float
    open_ended: bool = False

    def __str__(self) -> str:
        words = " + ".join(map(str, self.moves))
        # What it takes by default is left out where saying it would close the path.
        return words if self.open_ended else f"{words} in {_plain(self.seconds)}s"

    @property
    def phrase(self) -> str:
        """What a caption calls it: its most telling move."""
        order = ("orbit", "turn", "up", "down", "forward", "back", "left", "right", "tilt", "hold")
        move = min(self.moves, key=lambda move: order.index(move.word))
        return _KINDS[move.word].phrases[move.amount < 0]


class Keyframe(NamedTuple):
    """A pose at a time."""

    seconds: float
    pose: CameraPose


@dataclass(frozen=True)
class CameraPath:
    """A camera path, either of moves or of keyframes. Made by `read_camera_path`.

    `str` gives the canonical text, from which `parse_camera_path` makes an equal path.
    """

    groups: tuple[MoveGroup, ...] = ()
    keyframes: tuple[Keyframe, ...] = ()

    def __str__(self) -> str:
        if self.keyframes:
            rows = [[frame.seconds, *frame.pose] for frame in self.keyframes]
            return _KEYFRAMES_PREFIX + json.dumps(rows)
        return ", ".join(map(str, self.groups))

    @property
    def duration(self) -> float | None:
        """Seconds until the camera rests; None for a path without end."""
        if self.keyframes:
            return self.keyframes[-1].seconds
        if self.groups[-1].open_ended:
            return None
        return sum(group.seconds for group in self.groups)

    def phrases(self, start_seconds: float, end_seconds: float) -> list[tuple[str, float]]:
        """Return what the camera does in a stretch of time, with the seconds each fills."""
        if self.keyframes:
            return [("flying forward", end_seconds - start_seconds)]
        found, begin = [], 0.0
        for index, group in enumerate(self.groups):
            # The last one stands for what is after the end, too.
            end = begin + group.seconds if index + 1 < len(self.groups) else math.inf
            share = min(end, end_seconds) - max(begin, start_seconds)
            if share > 0:
                found.append((group.phrase, share))
            begin = end
        return found


def read_camera_path(given: str | Path | CameraPath) -> CameraPath:
    """Return a path from its words, or from a YAML file of keyframes.

    The file is a list of `{at: 2s, position: [right, up, forward], yaw: 10, pitch: 0, roll: 0}`;
    position and angles left out are those of the first frame.

    Raises:
        UsageError: The words are no path.
        SettingsError: The file is missing or malformed.
    """
    if isinstance(given, CameraPath):
        return given
    text = str(given).strip()
    if text.lower().endswith((".yaml", ".yml")):
        return _read_keyframe_file(Path(text))
    return parse_camera_path(text)


def parse_camera_path(text: str) -> CameraPath:
    """Return the path that words, or the canonical text of a path, stand for.

    Raises:
        UsageError: They stand for none; the message names the word and the hint the grammar.
    """
    if text.startswith(_KEYFRAMES_PREFIX):
        return _parse_keyframes(text.removeprefix(_KEYFRAMES_PREFIX))
    if len(text) > _LONGEST_WORDS:
        raise _wrong(f"a path of {len(text)} characters is longer than {_LONGEST_WORDS}")
    parts = text.split(",")
    groups = tuple(
        _parse_group(part, is_last=index == len(parts) - 1) for index, part in enumerate(parts)
    )
    pitch = 0.0
    for group in groups:
        pitch += sum(move.amount for move in group.moves if move.word == "tilt")
        if abs(pitch) > _MAX_PITCH:
            raise _wrong(f"tilts add up to {pitch:g} degrees; at most {_MAX_PITCH:g} can be shown")
    return CameraPath(groups)


def _parse_group(text: str, *, is_last: bool) -> MoveGroup:
    words = text.lower().replace("+", " + ").split()
    # A sign belongs to the number it stands before.
    for index in range(len(words) - 2, 0, -1):
        if words[index] == "+" and _number(words[index + 1]) is not None:
            words[index : index + 2] = [words[index + 1]]
    seconds = None
    if "in" in words:
        place = words.index("in")
        if place != len(words) - 2:
            raise _wrong(
                f"{briefly(text.strip())}: `in` and a time end a group of moves, as in `in 4s`"
            )
        try:
            seconds = parse_time(words[-1])
        except ValueError as error:
            raise _wrong(str(error)) from error
        if not 1e-3 <= seconds <= _LARGEST_NUMBER:
            raise _wrong(f"{briefly(text.strip())}: a move needs more than no time")
        words = words[:place]
    moves: list[Move] = []
    taken: list[str] = []
    for word in [*words, "+"]:
        if word != "+":
            taken.append(word)
            continue
        moves.append(_parse_move(taken, text.strip()))
        taken = []
    needed = max(abs(move.amount) / _KINDS[move.word].default_speed for move in moves)
    open_ended = is_last and seconds is None
    # Rounded as it is written, so that a path reads back as itself.
    taken_seconds = round(seconds or max(needed, _SHORTEST_SECONDS), 6)
    if taken_seconds > _LARGEST_NUMBER:
        raise _wrong(
            f"{briefly(text.strip())} takes {taken_seconds:.0f} s at its own pace, longer than a "
            "day; give it a time, as in `in 60s`"
        )
    return MoveGroup(tuple(moves), taken_seconds, open_ended)


def _parse_move(words: list[str], group: str) -> Move:
    if not words:
        raise _wrong(f"{briefly(group)}: a move is missing" if group else "a move is missing")
    name = _OTHER_WORDS.get(words[0], words[0])
    # "look up" tilts, "look left" turns.
    if words[0] == "look" and ("up" in words or "down" in words):
        name = "tilt"
    kind = _KINDS.get(name)
    if kind is None:
        near = difflib.get_close_matches(words[0], [*_KINDS, *_OTHER_WORDS], n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        raise _wrong(f"{briefly(words[0])} is no move{suggestion}")
    amount, side = None, 1.0
    for word in words[1:]:
        number = _number(word)
        if kind.sides and word in kind.sides:
            side = -1.0 if word == kind.sides[1] else 1.0
        elif number is not None and amount is None:
            amount = number
        elif word not in _AMOUNT_UNITS:
            raise _wrong(f"{briefly(word)} in {briefly(group)} is not understood")
    amount = kind.default_amount if amount is None else amount
    if name == "hold" and amount <= 0:
        raise _wrong(f"{briefly(group)}: a hold needs more than no time")
    return Move(name, side * amount)


def _number(word: str) -> float | None:
    for unit in _AMOUNT_UNITS:
        word = word.removesuffix(unit)
    if not _NUMBER.match(word):
        return None
    # As it is written down again.
    number = round(float(word), 9)
    if abs(number) > _LARGEST_NUMBER:
        raise _wrong(f"{briefly(word)} is too large")
    return number


def _wrong(reason: str) -> UsageError:
    return UsageError(f"--camera: {reason}{'' if reason.endswith('?') else '.'}", hint=GRAMMAR)


def _plain(number: float) -> str:
    """Return a number that reads back as itself, without an exponent."""
    text = repr(round(number, 9))
    return f"{number:.9f}".rstrip("0") if "e" in text else text.removesuffix(".0")


def _read_keyframe_file(path: Path) -> CameraPath:
    try:
        document = parse_yaml(decoded(read_document(path, MAX_YAML_BYTES)))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path.name}: cannot read this camera path ({reason}).") from error
    try:
        if not isinstance(document, list) or not document:
            raise ValueError("expected a list of keyframes")
        frames = [_keyframe(number, item) for number, item in enumerate(document, start=1)]
        return CameraPath(keyframes=_checked(frames))
    except ValueError as error:
        raise _wrong_file(path, str(error)) from error


def _wrong_file(path: Path, reason: str) -> LongVieError:
    return SettingsError(
        f"{path.name}: {reason}{'' if reason.endswith('?') else '.'}",
        hint="Write `- {at: 2s, position: [right, up, forward], yaw: 10, pitch: 0, roll: 0}`, "
        "in median depths of the first frame and degrees.",
    )


def _keyframe(number: int, item: object) -> Keyframe:
    if not isinstance(item, dict):
        raise ValueError(f"keyframe {number} is no mapping with at, position, yaw, pitch and roll")
    known = ("at", "position", "yaw", "pitch", "roll")
    for key in map(str, item):
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            suggestion = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"keyframe {number}: unknown key {briefly(key)}; {suggestion}")
    if "at" not in item:
        raise ValueError(f"keyframe {number} has no time: at")
    position = item.get("position", [0, 0, 0])
    if not isinstance(position, list) or len(position) != 3:
        raise ValueError(f"keyframe {number}: position must be [right, up, forward]")
    at = item["at"]
    if isinstance(at, bool) or not isinstance(at, int | float | str):
        raise ValueError(f"keyframe {number}: {briefly(at)} is no time; write 90s, 1.5m or 1:30")
    values = [*position, *(item.get(key, 0) for key in known[2:])]
    return Keyframe(parse_time(at), CameraPose(*(_finite(number, value) for value in values)))


def _finite(number: int, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"keyframe {number}: {briefly(value)} is no number")
    if not abs(value) <= _LARGEST_NUMBER:
        raise ValueError(f"keyframe {number}: {briefly(value)} is too large")
    return float(value)


def _checked(frames: list[Keyframe]) -> tuple[Keyframe, ...]:
    if frames[0].seconds != 0:
        frames = [Keyframe(0.0, CameraPose()), *frames]
    if frames[0].pose != CameraPose():
        raise ValueError("the keyframe at 0 s must be the first frame itself: all numbers 0")
    if len(frames) < 2:
        raise ValueError("a path needs a keyframe after 0 s")
    for before, after in itertools.pairwise(frames):
        if after.seconds <= before.seconds:
            raise ValueError(
                f"the keyframe at {after.seconds:g} s does not come after {before.seconds:g} s"
            )
    steepest = max((abs(frame.pose.pitch) for frame in frames), default=0.0)
    if steepest > _MAX_PITCH:
        raise ValueError(f"pitch {steepest:g} is steeper than {_MAX_PITCH:g} degrees")
    return tuple(frames)


def _parse_keyframes(text: str) -> CameraPath:
    try:
        rows = parse_json(text)
        if not isinstance(rows, list) or not rows:
            raise ValueError("no keyframes")
        frames = []
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, list) or len(row) != 1 + len(CameraPose._fields):
                raise ValueError(f"keyframe {number} is not a time and six numbers")
            seconds, *pose = (_finite(number, value) for value in row)
            frames.append(Keyframe(seconds, CameraPose(*pose)))
        return CameraPath(keyframes=_checked(frames))
    except ValueError as error:
        raise _wrong(f"the keyframes are malformed: {error}") from error
