"""Damaged videos through the real ffmpeg, and comment tags through the whole of `extend`."""

from __future__ import annotations

import random
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longvie_cli.errors import MediaError
from longvie_cli.media.metadata import read_settings
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_frames
from longvie_cli.media.writer import VideoWriter
from longvie_cli.planning.extend import decide
from longvie_cli.progress import SilentProgress
from longvie_cli.settings.requests import ExtendRequest

from .mutations import damaged_bytes, damaged_document, rendered
from .readers import ABOUTS
from .running import Reader, check

_COMMENT_BYTES = 4000
_READ_FRAMES = 3


def _video(path: Path) -> Path:
    with VideoWriter(path, height=112, width=192, fps=16, metadata="x" * _COMMENT_BYTES) as writer:
        for level in range(12):
            writer.write(np.full((112, 192, 3), 20 * level, np.uint8))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A short mp4 whose comment tag has room for other words."""
    return _video(tmp_path_factory.mktemp("video") / "whole.mp4").read_bytes()


def _look(folder: Path, data: bytes) -> None:
    path = folder / "video.mp4"
    path.write_bytes(data)
    probe_video(path)
    read_settings(path)
    frames = read_frames(probe_video(path), fps=16, height=32, width=48, fit="crop")
    for _ in zip(range(_READ_FRAMES), frames, strict=False):
        pass


class _Heads(Reader):
    def damaged(self, seed: int) -> bytes:
        # Only the head: frames themselves are damaged in tests/unit/media.
        head = self.corpus[0].index(b"mdat")
        chance = random.Random(f"{self.name} {seed}")
        return damaged_bytes(chance, self.corpus[0][:head]) + self.corpus[0][head:]


def _heads(video: bytes, inputs: int) -> Reader:
    return _Heads("mp4 head", _look, (video,), inputs, frozenset({5}))


def test_a_sample_of_damaged_heads(video: bytes, tmp_path: Path) -> None:
    check(_heads(video, 12), tmp_path, range(12))


@pytest.mark.slow
def test_damaged_heads(video: bytes, tmp_path: Path) -> None:
    check(_heads(video, 500), tmp_path, range(500))


def _commented(video: bytes, comment: bytes) -> bytes:
    """Return the video with another comment tag of the same length; room is filled with spaces."""
    return video.replace(b"x" * _COMMENT_BYTES, comment[:_COMMENT_BYTES].ljust(_COMMENT_BYTES))


def _extend(folder: Path, data: bytes) -> None:
    path = folder / "out.mp4"
    path.write_bytes(data)
    request = ExtendRequest(
        previous=path, output=folder / "on.mp4", prompt="dunes", seconds=0.5, lora=()
    )
    decide(request, SilentProgress())


class _Comments(Reader):
    def damaged(self, seed: int) -> bytes:
        chance = random.Random(f"{self.name} {seed}")
        about: Any = damaged_document(chance, chance.choice(ABOUTS), yaml=False)
        return _commented(self.corpus[0], rendered(about))


def _comments(video: bytes, inputs: int) -> Reader:
    return _Comments("extend", _extend, (video,), inputs, frozenset({2, 3, 5}))


def test_a_sample_of_comments_under_extend(video: bytes, tmp_path: Path) -> None:
    check(_comments(video, 3), tmp_path, range(3))


@pytest.mark.slow
def test_comments_under_extend(video: bytes, tmp_path: Path) -> None:
    check(_comments(video, 60), tmp_path, range(60))


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"seed": "seven"}, "settings.seed"),
        ({"steps": [4]}, "settings.steps"),
        ({"fit": 3}, "settings.fit"),
        ({"track_grid": "1000x1000"}, "settings.track_grid"),
        ({"tracker": "magic"}, "settings.tracker"),
        ({"guidance": True}, "settings.guidance"),
        (["seed"], "settings"),
    ],
)
def test_a_crafted_comment_is_named(longvie, tmp_path, video, settings, where) -> None:
    about = {"tool": "longvie", "schema_version": 1, "settings": settings}
    (tmp_path / "crafted.mp4").write_bytes(_commented(video, rendered(about)))
    outcome = longvie("extend", "crafted.mp4", "-p", "x", "--seconds", "0.5", "-o", "on.mp4")
    assert outcome.code == 5, outcome.err
    assert f"cannot be used ({where}:" in outcome.err
    assert "Traceback" not in outcome.err and "Unexpected" not in outcome.err


def test_a_comment_of_a_newer_longvie_is_said(longvie, tmp_path, video) -> None:
    about = {"tool": "longvie", "schema_version": 2, "settings": {"seed": "another kind"}}
    (tmp_path / "newer.mp4").write_bytes(_commented(video, rendered(about)))
    outcome = longvie("extend", "newer.mp4", "-p", "x", "--seconds", "0.5", "-o", "on.mp4")
    assert outcome.code == 5, outcome.err
    assert "newer longvie (format 2" in outcome.err


@pytest.mark.parametrize("claimed", [2**31 - 1, 50_000_000])
def test_a_header_that_claims_millions_of_frames_takes_no_memory(
    tmp_path: Path, video: bytes, claimed: int
) -> None:
    data = bytearray(video)
    sizes, chunks, times = (data.index(tag) for tag in (b"stsz", b"stsc", b"stts"))
    # All samples of one byte, all in one chunk, all of one duration.
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, claimed)
    data[chunks + 16 : chunks + 20] = struct.pack(">I", claimed)
    data[times + 12 : times + 16] = struct.pack(">I", claimed)
    path = tmp_path / "claims.mp4"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with pytest.raises(MediaError, match=r"claims\.mp4"):
        probe_video(path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before < 500_000  # KiB
