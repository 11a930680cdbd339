"""What a file holds beside its video: all its streams, chapters and tags, as ffmpeg lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longvie_cli.media.ffmpeg import check_readable, input_arguments, run_inspecting
from longvie_cli.media.metadata import global_tags, settings_in

_CONTAINER = re.compile(r"^Input #0, (?P<names>\S+), from")
_STREAM = re.compile(r"^Stream #0:(?P<number>\d+)[^:]*: (?P<kind>[A-Z]\w+): (?P<about>.*)$")
_ABOUT = re.compile(
    r"^(?P<codec>\w+)(?: \((?P<profile>[^)/]+)\))?(?: \([^)]*\))?(?:, (?P<layout>[^\s,(]+))?"
)
_ROTATION = re.compile(r"^Display Matrix: rotation of (?P<degrees>-?[\d.]+) degrees")

# Of the container, not of the film.
_TECHNICAL_TAGS = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "creation_time"),
    *("duration", "handler_name", "vendor_id", "software", "service_name", "service_provider"),
}
_NAMED_TAGS = 3


@dataclass(frozen=True)
class Stream:
    """One stream of a file.

    Args:
        number: Its place among all streams.
        kind: `video`, `audio`, `subtitle`, `data` or `attachment`.
        codec: ffmpeg's name of it, `none` where ffmpeg knows none.
        profile: Of the codec, `High` for instance; empty where nothing is said.
        layout: Pixel format of a picture; empty where nothing is said.
        is_default: Whether the file says that it is the one of its kind to play.
        is_cover: Whether it is a cover picture.
        rotation: Degrees by which the file asks to turn it.
    """

    number: int
    kind: str
    codec: str
    profile: str = ""
    layout: str = ""
    is_default: bool = False
    is_cover: bool = False
    rotation: float = 0.0


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        containers: Names of the container format.
        streams: In their order.
        num_chapters: Chapters.
        tags: Tags of the whole file, by name in small letters.
    """

    containers: frozenset[str]
    streams: tuple[Stream, ...]
    num_chapters: int
    tags: Mapping[str, str]

    def of(self, kind: str) -> tuple[Stream, ...]:
        """Return the streams of a kind, cover pictures left out."""
        found = (stream for stream in self.streams if stream.kind == kind)
        return tuple(stream for stream in found if not stream.is_cover)


def read_contents(path: Path) -> Contents:
    """Return what a file holds; reads no packet.

    Raises:
        MediaError: The file cannot be read.
    """
    check_readable(path)
    report, remarks = run_inspecting(path, [*input_arguments(path), "-f", "ffmetadata", "pipe:1"])
    containers, streams = streams_in(remarks)
    return Contents(
        containers,
        streams,
        num_chapters=report.splitlines().count(b"[CHAPTER]"),
        tags=_without_settings(report),
    )


def streams_in(remarks: Sequence[str]) -> tuple[frozenset[str], tuple[Stream, ...]]:
    """Return the names of the container and the streams that ffmpeg's remarks list of its input."""
    containers: frozenset[str] = frozenset()
    streams: dict[int, Stream] = {}
    last = -1
    for line in remarks:
        if line.startswith(("Stream mapping:", "Output #")):
            break
        if found := _CONTAINER.match(line):
            containers = frozenset(found["names"].split(","))
        elif found := _STREAM.match(line):
            last = int(found["number"])
            streams[last] = _stream(last, found["kind"].lower(), found["about"])
        elif (found := _ROTATION.match(line)) and last in streams:
            turned = {**vars(streams[last]), "rotation": float(found["degrees"])}
            streams[last] = Stream(**turned)
    # A program of MPEG-TS lists its own streams, in an order of its own.
    return containers, tuple(streams[number] for number in sorted(streams))


def _stream(number: int, kind: str, about: str) -> Stream:
    found = _ABOUT.match(about)
    return Stream(
        number=number,
        kind=kind,
        codec=found["codec"] if found else "none",
        profile=(found["profile"] or "") if found else "",
        layout=(found["layout"] or "") if found else "",
        is_default="(default)" in about,
        is_cover="(attached pic)" in about,
    )


def chosen_video(path: Path, contents: Contents, video: int) -> list[str]:
    """Return in a line which of several videos of a file is used, by its number; none of one."""
    videos = [stream.number for stream in contents.of("video")]
    if len(videos) < 2:
        return []
    place = videos.index(video) + 1
    return [f"{path.name}: it holds {len(videos)} videos; number {place} is used."]


def left_out(path: Path, contents: Contents) -> list[str]:
    """Return one line for each thing of a file that does not go along with picture and sound."""
    lines = []
    for kind, name in (("subtitle", "subtitle track"), ("data", "data stream")):
        if number := len(contents.of(kind)):
            lines.append(f"its {_counted(number, name)} left out.")
    if contents.num_chapters:
        lines.append(f"its {_counted(contents.num_chapters, 'chapter')} left out.")
    if any(stream.is_cover for stream in contents.streams):
        lines.append("its cover picture is left out.")
    if tags := [name for name in contents.tags if name not in _TECHNICAL_TAGS]:
        named = ", ".join(tags[:_NAMED_TAGS])
        more = f" and {len(tags) - _NAMED_TAGS} more" if len(tags) > _NAMED_TAGS else ""
        lines.append(f"its tags ({named}{more}) are left out.")
    return [f"{path.name}: {line}" for line in lines]


def _counted(number: int, name: str) -> str:
    return f"{name} is" if number == 1 else f"{number} {name}s are"


def _without_settings(report: bytes) -> dict[str, str]:
    """Return the tags of a file; the settings that longvie wrote are nobody's comment."""
    tags = global_tags(report.decode(errors="replace"))
    if (settings_in(report) or {}).get("tool") == "longvie":
        tags.pop("comment", None)
    return tags
