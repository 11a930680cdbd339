"""What a finished video says of how it was made: in its `comment` tag and in `delivery.json`.

Everybody can write a comment tag, so everything in it that is used is checked here. What a later
version adds is kept and not understood.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from longvie_cli.disk.documents import first_reason_of
from longvie_cli.errors import LongVieError, UsageError
from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.settings.presets import Fit, parse_size
from longvie_cli.settings.requests import AtCut, Fov
from longvie_cli.settings.sampling import FrameSettings
from longvie_cli.settings.tracking import parse_track_grid, parse_tracker
from longvie_cli.timeline import MAX_SECONDS

ABOUT_VERSION = 1

# As many frames as 24 hours have at 60 a second.
_Frame = Annotated[int, Field(ge=0, le=MAX_SECONDS * 60)]
_Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _understood_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return a check that a text is one that `parse` takes."""

    def check(text: str) -> str:
        try:
            parse(text)
        except LongVieError as error:
            raise ValueError(error.message) from error
        return text

    return AfterValidator(check)


class _Known(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="allow", strict=True, populate_by_name=True, serialize_by_alias=True
    )


class UsedLora(_Known):
    """A LoRA a video was made with: the file's name and hash, and its scale."""

    name: str
    hash: str
    scale: float = Field(ge=-10.0, le=10.0)


class DecidingSettings(_Known, FrameSettings):
    """What decided the frames, as `deciding_settings` writes it."""

    preset: str | None = None
    frames: _Frame | None = None
    prompt: str | None = None
    prompts: tuple[str, ...] | None = None
    first_frame: str | None = None
    video_hash: str | None = None
    controls_hashes: tuple[str, ...] | None = None
    flight: _Seed | None = None
    landscape: _Seed | None = None
    camera: Annotated[str, _understood_by(parse_camera_path)] | None = None
    camera_picture: str | None = None
    fov: Fov | None = None
    first_source_frame: _Frame | None = None
    pingpong: bool | None = None
    tracker: Annotated[str, _understood_by(parse_tracker)] | None = None
    track_grid: Annotated[str, _understood_by(parse_track_grid)] | None = None
    size: Annotated[str, _understood_by(parse_size)] | None = None
    at_cut: AtCut | None = None
    fit: Fit | None = None
    seeds: tuple[_Seed, ...] | None = None
    lora: tuple[UsedLora, ...] | None = None


class LastPictures(_Known):
    """How many pictures a video ends with, and `hash_last_pictures` of them."""

    count: int = Field(ge=1, le=1000)
    hash: str


class About(_Known):
    """The whole of it."""

    tool: Literal["longvie"]
    schema_version: int = Field(default=ABOUT_VERSION, ge=1)
    settings: DecidingSettings = DecidingSettings()
    source_kind: str | None = None
    last_source_frame: _Frame = 0
    frames: _Frame | None = None
    fps: int | None = Field(default=None, ge=1, le=1000)
    clips: _Frame = 0
    last_pictures: LastPictures | None = None
    last_prompt: str | None = None
    captioned: bool = True

    @model_validator(mode="after")
    def _names_its_source(self) -> Self:
        needed = {"flight": ("flight",), "camera": ("camera", "landscape")}
        for name in needed.get(self.source_kind or "", ()):
            if getattr(self.settings, name) is None:
                raise ValueError(f"a {self.source_kind} without settings.{name}")
        return self


def check_settings(stored: dict[str, Any]) -> None:
    """Do nothing if everything that is used of stored deciding settings can be.

    Raises:
        ValueError: Something cannot.
    """
    _validated(DecidingSettings, stored)


def checked_about(stored: dict[str, Any]) -> About:
    """Return what a video says of itself, if what is used of it can be.

    Raises:
        ValueError: Something in it has the wrong type or range, or a newer version wrote it.
    """
    version = stored.get("schema_version", ABOUT_VERSION)
    if type(version) is int and version > ABOUT_VERSION:
        raise ValueError(
            f"written by a newer longvie (format {version}, this one reads up to {ABOUT_VERSION})"
        )
    return _validated(About, stored)


_Checked = TypeVar("_Checked", About, DecidingSettings)


def _validated(model: type[_Checked], stored: dict[str, Any]) -> _Checked:
    try:
        # As JSON, where lists stand for tuples; null is as good as nothing.
        return model.model_validate_json(json.dumps(_without_nulls(stored)))
    except ValidationError as error:
        raise ValueError(first_reason_of(error)) from error
    except UsageError as error:
        # Said of flags, which here nobody gave.
        raise ValueError(error.message) from error


def _without_nulls(stored: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in stored.items()
        if value is not None
    }
