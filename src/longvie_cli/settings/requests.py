"""The requests: everything one command was asked to do, checked, with no default left open.

Field names are the library's; where a flag has a shorter name, that name is the field's alias and
the key in settings files and `LONGVIE_*` variables (`steps`, `guidance`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    field_validator,
    model_validator,
)

from longvie_cli.errors import UsageError
from longvie_cli.settings.camera_path import CameraPath, read_camera_path
from longvie_cli.settings.presets import (
    DEFAULT_PRESET,
    Fit,
    SizeSetting,
)
from longvie_cli.settings.prompts import Prompts, PromptText
from longvie_cli.settings.sampling import DType, SamplingSettings
from longvie_cli.settings.tracking import Tracking
from longvie_cli.timeline import MAX_SECONDS, ClipGeometry

FirstFrame = Literal["video", "prompt"]
Repeat = Literal["pingpong"]
AtCut = Literal["refuse", "restart", "ignore"]

DEPTH_MODELS = ("embedded", "small", "base", "large")
"""Depth models that have a name; any other is the folder it is in."""

# Options of which one replaces the others; a flag of a group hides the whole group in the settings
# files beneath it.
EXCLUSIVE_GROUPS = (
    ("minutes", "seconds", "clips"),
    ("prompt", "prompt_file"),
    ("video", "controls", "camera"),
    ("image", "first_frame"),
    ("overwrite", "no_clobber"),
    ("depth", "depth_model"),
)

# Words, or the name of a YAML file of keyframes.
Camera = Annotated[InstanceOf[CameraPath], BeforeValidator(read_camera_path)]
Fov = Annotated[float, Field(ge=10.0, le=120.0)]


EngineName = Literal["reference", "fused", "bf16", "fp8", "int8"]


def _engine_names(value: Any) -> Any:
    """Return names written `reference,fused` apart; anything but text as it is.

    Raises:
        ValueError: One is written twice.
    """
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if isinstance(names, list | tuple) and len({*map(str, names)}) < len(names):
        raise ValueError("an engine is named twice")
    return names


def _memory_size(value: Any) -> Any:
    """Return the bytes of a size written `24GB` or `24GiB`; anything but text as it is.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([KMGT]i?)?B?", value.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError("use a size as in 24GB or 24GiB")
    unit = (found[2] or "").lower()
    power = "kmgt".index(unit[0]) + 1 if unit else 0
    return int(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** power)


EngineNames = Annotated[tuple[EngineName, ...], BeforeValidator(_engine_names), Field(min_length=1)]
MemorySize = Annotated[int, BeforeValidator(_memory_size), Field(gt=0)]


class Request(BaseModel):
    """What every command is asked with."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    exclusive_groups: ClassVar[tuple[tuple[str, ...], ...]] = EXCLUSIVE_GROUPS

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_written_down(cls, value: Any) -> Any:
        # File names are bytes; run.json and the comment tag hold Unicode.
        for item in value if isinstance(value, list | tuple) else (value,):
            if not isinstance(item, str | Path):
                continue
            try:
                encoded = str(item).encode()
            except UnicodeEncodeError as error:
                raise ValueError("it is no UTF-8 text; rename the file or folder") from error
            if b"\0" in encoded:
                raise ValueError("it holds a NUL character")
        return value

    @model_validator(mode="after")
    def _exclusive(self) -> Self:
        for group in self.exclusive_groups:
            given = [name for name in group if getattr(self, name, None) not in (None, False)]
            if len(given) > 1:
                raise UsageError(f"{flags_of(given)}: pass only one of them.")
        return self


class OutputRequest(Request):
    """What a command is asked with that makes one file or folder."""

    output: Path


class Network(BaseModel):
    """Whether the network may be asked; HF_HUB_OFFLINE=1 forbids it just as well."""

    offline: bool = False


class Length(BaseModel):
    """How long the video shall be: one of minutes, seconds and clips, or none of them."""

    minutes: float | None = Field(default=None, gt=0.0, le=MAX_SECONDS / 60)
    seconds: float | None = Field(default=None, gt=0.0, le=MAX_SECONDS)
    clips: int | None = Field(default=None, ge=1, le=MAX_SECONDS)

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
    """How the run is kept and its file is written.

    Args:
        crf: H.264 quality.
        overwrite: Replace the output at the end.
        no_clobber: Do nothing if the output exists.
        keep_clips: Keep the single clips once they are joined.
        embed_metadata: Write the settings into the file.
        run_dir: Run folder; None for the one beside the output.
        live: File that is refreshed with what is finished after each clip.
        retries: How often a clip that looks wrong is made again with another seed.
        from_clip: Take the run on with other settings: keep the clips before this one.
    """

    crf: int = Field(default=18, ge=1, le=51)
    overwrite: bool = False
    no_clobber: bool = False
    keep_clips: bool = True
    embed_metadata: bool = True
    run_dir: Path | None = None
    live: Path | None = None
    retries: int = Field(default=0, ge=0, le=10)
    from_clip: int | None = Field(default=None, ge=0)


class EstimatedDepth(BaseModel):
    """What estimates the depth of videos, and what is done to it over time."""

    depth_model: str | None = Field(default=None, min_length=1)
    depth_smoothing: Literal["none", "flow"] | None = None


class DepthSettings(EstimatedDepth):
    """Where the depth of a video comes from: estimates, or a ready depth video."""

    depth: Path | None = None
    depth_polarity: Literal["near-white", "near-black", "auto"] | None = None


class GenerateRequest(
    OutputRequest, Length, Delivery, Network, Tracking, DepthSettings, SamplingSettings
):
    """What `generate` was asked: prompts, control source, first frame, length and sampling.

    What the preset was trained with stands for what is not given.
    """

    preset: str = DEFAULT_PRESET
    size: SizeSetting | None = None
    prompt: PromptText | None = None
    prompts: Prompts = ()
    video: Path | None = None
    controls: Path | None = None
    camera: Camera | None = None
    fov: Fov = 55.0
    image: Path | None = None
    first_frame: FirstFrame | None = None
    first_frame_model: Path | None = None
    repeat: Repeat | None = None
    at_cut: AtCut | None = None
    fit: Fit | None = None
    audio: str = "none"
    weights: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.audio == "source" and self.video is None:
            raise UsageError("--audio source: there is no --video to take the sound from.")
        if self.depth is not None and self.video is None:
            raise UsageError("--depth: there is no --video that it is the depth of.")
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


class ExtendRequest(
    OutputRequest, Length, Delivery, Network, Tracking, DepthSettings, SamplingSettings
):
    """What `extend` was asked; None stands for "as in the earlier video", then for the preset's."""

    previous: Path
    size: SizeSetting | None = None
    prompt: PromptText | None = None
    prompts: Prompts = ()
    video: Path | None = None
    controls: Path | None = None
    camera: Camera | None = None
    fov: Fov | None = None
    first_frame: FirstFrame | None = None
    first_frame_model: Path | None = None
    repeat: Repeat | None = None
    at_cut: AtCut | None = None
    fit: Fit | None = None
    audio: str | None = None
    preset: str | None = None
    weights: Path | None = None


class StitchRequest(OutputRequest):
    """What `stitch` was asked: runs, folders of clips or mp4 files, joined in this order.

    Without `audio` the sound of the inputs goes along.
    """

    inputs: tuple[Path, ...] = Field(min_length=1)
    audio: str | None = None
    overwrite: bool = False
    no_clobber: bool = False
    embed_metadata: bool = True


class ExtractControlsRequest(OutputRequest, Length, Network, Tracking, DepthSettings):
    """What `extract-controls` was asked: a video, a path through a picture, or a landscape."""

    exclusive_groups = (*EXCLUSIVE_GROUPS, ("video", "image"))

    preset: str = DEFAULT_PRESET
    size: SizeSetting | None = None
    video: Path | None = None
    image: Path | None = None
    camera: Camera | None = None
    fov: Fov = 55.0
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    prompt: PromptText | None = None
    at_cut: AtCut | None = None
    preview: bool = False
    overwrite: bool = False
    fit: Fit | None = None
    device: str = "auto"

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.image is not None and self.camera is None:
            raise UsageError(
                "--image: a picture alone has no motion to extract.",
                hint='Pass --camera "forward" or another path through it.',
            )
        if self.video is None and self.camera is None and self.seed is None:
            raise UsageError(
                "There is nothing to take controls from.",
                hint="Pass a VIDEO, --camera PATH (with --image FILE, or over a landscape), or "
                "--seed N for a flight over a landscape.",
            )
        if self.depth is not None and self.video is None:
            raise UsageError("--depth: there is no VIDEO that it is the depth of.")
        return self


class PrepareRequest(OutputRequest, Network, Tracking, EstimatedDepth):
    """What `prepare` was asked: videos to cut into samples, and where their captions stand.

    Args:
        captions: YAML or JSON of captions by video; None for a text file beside each.
        captioner: Folder of a model that captions clips without a caption.
        uncaptioned: What becomes of clips that then have none.
    """

    inputs: tuple[Path, ...] = Field(min_length=1)
    preset: str = DEFAULT_PRESET
    size: SizeSetting | None = None
    fit: Fit | None = None
    captions: Path | None = None
    captioner: Path | None = None
    uncaptioned: Literal["drop", "empty"] = "drop"
    overwrite: bool = False
    device: str = "auto"


class BenchRequest(Request, SamplingSettings):
    """What `bench` was asked: a preset, the engines that run it, and how often.

    Args:
        engine: Names of `benchmarking.engine_run.ENGINES`, compared in this order.
        random_weights: Weights of random numbers, for a preset whose own are not here.
        repeats: Clips of each engine.
        memory_limit: Bytes of a GPU that may be taken.
        picture: File for the roofline picture.
    """

    preset: str = DEFAULT_PRESET
    size: SizeSetting | None = None
    weights: Path | None = None
    engine: EngineNames = ("reference", "fused")
    random_weights: bool = False
    repeats: int = Field(default=3, ge=1, le=100)
    memory_limit: MemorySize | None = None
    picture: Path | None = None
    overwrite: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.random_weights and self.weights is not None:
            raise UsageError("--random-weights, --weights: pass only one of them.")
        return self


class EvaluateRequest(Request):
    """What `evaluate` was asked: a video, what it is compared with, and where the report goes.

    Args:
        video: The video, or the folder of a run.
        reference: What it should look like.
        controls: What it was to follow; None for the controls of its run.
        run: Its run folder; None for the one that is found beside it.
        compare: Other videos, measured in the same way.
        report: HTML file for the report.
        overwrite: Replace the report.
    """

    exclusive_groups = ()

    video: Path
    reference: Path | None = None
    controls: Path | None = None
    run: Path | None = None
    compare: tuple[Path, ...] = ()
    report: Path | None = None
    overwrite: bool = False


class RedoRequest(Request):
    """What `redo` was asked: a run, the first clip to make again, and what is new about it."""

    run: Path
    clip: int = Field(ge=0)
    new_prompt: PromptText | None = None
    new_seed: int | None = Field(default=None, ge=0, lt=2**63)


class RunRequest(Request):
    """What `resume` and `status` were asked: a run, by its folder or its output."""

    run: Path


class ModelsRequest(Request, Network):
    """What `models list`, `pull`, `verify` and `path` were asked: names of presets and models."""

    names: tuple[str, ...] = ()
    accept_noncommercial: bool = False


class ConvertModelsRequest(OutputRequest):
    """What `models convert` was asked: folders with released files, and the type to store."""

    inputs: tuple[Path, ...] = Field(min_length=1)
    dtype: DType = "auto"


def flags_of(names: list[str] | tuple[str, ...]) -> str:
    """Return field or settings names as the flags a user types, joined by commas."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
