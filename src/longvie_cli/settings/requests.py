"""The requests: everything one command was asked to do, checked, with no default left open.

Field names are the library's; where a flag has a shorter name, that name is the field's alias and
the key in settings files and `LONGVIE_*` variables (`steps`, `guidance`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, model_validator

from longvie_cli.errors import UsageError
from longvie_cli.settings.camera_path import CameraPath, read_camera_path
from longvie_cli.settings.presets import DEFAULT_PRESET, Fit
from longvie_cli.settings.prompts import TimedPrompt
from longvie_cli.timeline import ClipGeometry

DType = Literal["auto", "float32", "bfloat16", "float16"]
FirstFrame = Literal["video", "prompt"]
Repeat = Literal["pingpong"]

# Options of which one replaces the others; a flag of a group hides the whole group in the settings
# files beneath it.
EXCLUSIVE_GROUPS = (
    ("minutes", "seconds", "clips"),
    ("prompt", "prompt_file"),
    ("video", "controls", "camera"),
    ("image", "first_frame"),
    ("overwrite", "no_clobber"),
)

# Words, or the name of a YAML file of keyframes.
Camera = Annotated[InstanceOf[CameraPath], BeforeValidator(read_camera_path)]
Fov = Annotated[float, Field(ge=10.0, le=120.0)]
Strength = Annotated[float, Field(ge=0.0, le=4.0)]


class Request(BaseModel):
    """What every command is asked with."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    output: Path

    @model_validator(mode="after")
    def _exclusive(self) -> Self:
        for group in EXCLUSIVE_GROUPS:
            given = [name for name in group if getattr(self, name, None) not in (None, False)]
            if len(given) > 1:
                raise UsageError(f"{flags_of(given)}: pass only one of them.")
        return self


class Length(BaseModel):
    """How long the video shall be: one of minutes, seconds and clips, or none of them."""

    minutes: float | None = Field(default=None, gt=0.0)
    seconds: float | None = Field(default=None, gt=0.0)
    clips: int | None = Field(default=None, ge=1)

    def wanted_frames(self, geometry: ClipGeometry, *, continues: bool = False) -> int | None:
        """Return the frames asked for, or None where no length was given."""
        if self.minutes is not None:
            return geometry.frames_of_seconds(self.minutes * 60)
        if self.seconds is not None:
            return geometry.frames_of_seconds(self.seconds)
        if self.clips is not None:
            return geometry.frames_of_clips(self.clips) - (1 if continues else 0)
        return None

    @property
    def length_flag(self) -> str:
        """The length as the user wrote it, for messages."""
        for name in ("minutes", "seconds", "clips"):
            value = getattr(self, name)
            if value is not None:
                return f"--{name} {value:g}"
        return ""


class Delivery(BaseModel):
    """How the finished file is written."""

    crf: int = Field(default=18, ge=1, le=51)
    overwrite: bool = False
    no_clobber: bool = False
    keep_clips: bool = True
    embed_metadata: bool = True
    run_dir: Path | None = None


class GenerateRequest(Request, Length, Delivery):
    """What `generate` was asked: prompts, control source, first frame, length and sampling."""

    prompt: str | None = None
    prompts: tuple[TimedPrompt, ...] = ()
    video: Path | None = None
    controls: Path | None = None
    camera: Camera | None = None
    fov: Fov = 55.0
    image: Path | None = None
    first_frame: FirstFrame | None = None
    first_frame_model: Path | None = None
    repeat: Repeat | None = None
    fit: Fit = "crop"
    audio: str = "none"
    preset: str = DEFAULT_PRESET
    device: str = "auto"
    dtype: DType = "auto"
    seed: int = Field(default=0, ge=0, lt=2**63)
    num_inference_steps: int = Field(alias="steps", ge=1, le=1000)
    guidance_scale: float = Field(alias="guidance", ge=1.0, le=50.0)
    negative_prompt: str = ""
    depth_strength: Strength = 1.0
    track_strength: Strength = 1.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.audio == "source" and self.video is None:
            raise UsageError("--audio source: there is no --video to take the sound from.")
        if self.repeat is not None and not (self.video or self.controls or self.camera):
            raise UsageError("--repeat: only a --video, --controls or --camera can be repeated.")
        if self.first_frame == "video" and self.controls is not None:
            raise UsageError(
                "--first-frame video: with --controls there is no video to take it from.",
                hint="Pass --image FILE.",
            )
        if (self.video or self.controls) and not (self.prompt or self.prompts or self.controls):
            raise UsageError(
                "--prompt: say what the video shall show.", hint='Pass --prompt "...".'
            )
        return self


class ExtendRequest(Request, Length, Delivery):
    """What `extend` was asked; None stands for "as in the earlier video", then for the preset's."""

    previous: Path
    prompt: str | None = None
    prompts: tuple[TimedPrompt, ...] = ()
    video: Path | None = None
    controls: Path | None = None
    camera: Camera | None = None
    fov: Fov | None = None
    repeat: Repeat | None = None
    fit: Fit | None = None
    preset: str | None = None
    device: str = "auto"
    dtype: DType | None = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    num_inference_steps: int | None = Field(default=None, alias="steps", ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, alias="guidance", ge=1.0, le=50.0)
    negative_prompt: str | None = None
    depth_strength: Strength | None = None
    track_strength: Strength | None = None


class StitchRequest(Request):
    """What `stitch` was asked: runs, folders of clips or mp4 files, joined in this order."""

    inputs: tuple[Path, ...] = Field(min_length=1)
    audio: str = "none"
    overwrite: bool = False
    no_clobber: bool = False
    embed_metadata: bool = True


class ExtractControlsRequest(Request, Length):
    """What `extract-controls` was asked: a video to take depth and tracks from."""

    video: Path
    prompt: str | None = None
    fit: Fit = "crop"
    preset: str = DEFAULT_PRESET
    device: str = "auto"


def flags_of(names: list[str] | tuple[str, ...]) -> str:
    """Return field or settings names as the flags a user types, joined by commas."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
