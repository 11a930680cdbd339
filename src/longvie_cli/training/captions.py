"""Captions of videos: text beside each, or one file that names them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longvie_cli.disk.documents import (
    MAX_JSON_BYTES,
    MAX_YAML_BYTES,
    briefly,
    decoded,
    parse_json,
    parse_yaml,
    read_document,
)
from longvie_cli.errors import SettingsError
from longvie_cli.settings.prompts import (
    TimedPrompt,
    is_blank,
    is_marked,
    prompt_at,
    read_prompt_file,
)

_LONGEST_CHARACTERS = 10_000
_HINT = "Write `clip.mp4: a walk through a wood`, one line a video."


@dataclass(frozen=True)
class Caption:
    """What a video shows, over time where its text says so.

    Args:
        prompts: In order of time; empty where there is no caption.
    """

    prompts: tuple[TimedPrompt, ...] = ()

    def at(self, seconds: float) -> str:
        """Return the text in force at a time of the video, empty where there is none."""
        return prompt_at(self.prompts, seconds) if self.prompts else ""

    @classmethod
    def of_text(cls, text: str) -> Caption:
        """Return the caption that is the same all the time; none where the text shows nothing.

        Raises:
            ValueError: It is longer than 10 000 characters.
        """
        line = " ".join(text.split())
        if is_blank(line):
            return cls()
        if len(line) > _LONGEST_CHARACTERS:
            raise ValueError(f"a caption of more than {_LONGEST_CHARACTERS} characters")
        return cls((TimedPrompt(start_seconds=0.0, text=line),))


class Sidecars:
    """A text file beside each video: NAME.txt for NAME.mp4, or NAME.mp4.txt."""

    def of(self, video: Path) -> Caption:
        """Return the caption of a video.

        Raises:
            SettingsError: Its file cannot be read, or holds no caption as it is meant.
        """
        path = next(
            (path for path in _sidecar_names(video) if path.is_file() and path != video), None
        )
        if path is None:
            return Caption()
        try:
            content = decoded(read_document(path, MAX_YAML_BYTES))
            if not is_marked(content):
                return Caption.of_text(content)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path}: this caption cannot be read ({error}).") from error
        prompts = tuple(each for each in read_prompt_file(path) if isinstance(each, TimedPrompt))
        if not prompts:
            raise SettingsError(
                f"{path}: captions of a video name times, as in [0s-20s], not clips.",
                hint="The clips of `prepare` are cut at its scenes.",
            )
        return Caption(prompts)


class CaptionFile:
    """The captions of all videos in one YAML or JSON file, by path as typed or by name.

    Args:
        path: Read at once. JSON may have 64 MiB, YAML 1 MiB.

    Raises:
        SettingsError: It cannot be read, or is no mapping of names to texts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._captions = {name: self._parsed(name, text) for name, text in self._read().items()}

    def _read(self) -> Mapping[str, object]:
        json_file = self._path.suffix.lower() == ".json"
        try:
            data = read_document(self._path, MAX_JSON_BYTES if json_file else MAX_YAML_BYTES)
            found = parse_json(data) if json_file else parse_yaml(decoded(data))
        except (OSError, ValueError) as error:
            raise SettingsError(f"--captions {self._path}: cannot be read ({error}).") from error
        if not isinstance(found, dict):
            raise SettingsError(
                f"--captions {self._path}: it must map videos to captions.", hint=_HINT
            )
        return {str(name): text for name, text in found.items()}

    def _parsed(self, name: str, text: object) -> Caption:
        try:
            if not isinstance(text, str):
                raise ValueError(f"{briefly(text)} is no text; put it in quotes")
            return Caption.of_text(text)
        except ValueError as error:
            raise SettingsError(
                f"--captions {self._path}: {briefly(name)}: {error}.", hint=_HINT
            ) from error

    def of(self, video: Path) -> Caption:
        """Return the caption of a video, an empty one where the file does not name it."""
        found = self._captions.get(str(video)) or self._captions.get(video.name)
        return found or Caption()


def _sidecar_names(video: Path) -> tuple[Path, Path]:
    return video.with_suffix(".txt"), video.with_name(f"{video.name}.txt")
