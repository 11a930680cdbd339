"""The presets: one model, its clip geometry and the sampling settings it was trained for."""

from __future__ import annotations

import difflib
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from longvie_cli.disk.documents import (
    MAX_JSON_BYTES,
    briefly,
    first_reason_of,
    parse_json,
    read_document,
)
from longvie_cli.errors import MissingResourceError, SettingsError, UsageError
from longvie_cli.timeline import ClipGeometry

PRESET_NAMES = ("tiny", "longvie2")
DEFAULT_PRESET = "tiny"

Fit = Literal["crop", "pad", "stretch"]

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.IGNORECASE)
# Below, depth and tracks have nothing to hold on to; above, x264 and the VAE are far out of bounds.
_SHORTEST_SIDE, _LONGEST_SIDE = 64, 4096


class FrameSize(BaseModel):
    """Width and height of a video in pixels, `640x352` as it is typed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What may be asked for begins at _SHORTEST_SIDE; a preset may be of any size.
    width: int = Field(ge=1, le=_LONGEST_SIDE)
    height: int = Field(ge=1, le=_LONGEST_SIDE)

    @property
    def label(self) -> str:
        """As it is typed."""
        return f"{self.width}x{self.height}"


def parse_size(value: Any) -> Any:
    """Return the `FrameSize` of a size written `640x352`, anything but text as it is.

    Raises:
        ValueError: It is no WIDTHxHEIGHT, or a side is out of range.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None or not all(
        _SHORTEST_SIDE <= int(side) <= _LONGEST_SIDE for side in found.groups()
    ):
        raise ValueError(
            f"use WIDTHxHEIGHT, each from {_SHORTEST_SIDE} to {_LONGEST_SIDE}, as in 640x352"
        )
    return FrameSize(width=int(found[1]), height=int(found[2]))


SizeSetting = Annotated[FrameSize, BeforeValidator(parse_size)]


class TrackGrid(BaseModel):
    """How many points are tracked in a clip: a grid of columns x rows over the first frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: int = Field(ge=2, le=256)
    rows: int = Field(ge=2, le=256)

    @property
    def label(self) -> str:
        """As it is typed: columns x rows."""
        return f"{self.columns}x{self.rows}"


class Vocabulary(BaseModel):
    """All that a model was told of, for one that knows little.

    Args:
        subject: What its videos show.
        words: What words tell, and those of its training prompts that do, in small letters, the
            plainest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str
    words: tuple[tuple[str, tuple[str, ...]], ...]


class Preset(BaseModel):
    """One model and the numbers that belong to it.

    Heights and widths are in pixels; `control_height` and `control_width` are the size at which
    controls are extracted and stored, the same as the video's where not given. `models` are
    the registry names of the models that must be fetched; none where the package holds the weights.
    `size_multiple` is what both sides must be multiples of: VAE factor times patch.
    `vocabulary` is what a model knows that does not know the world.
    `weights` is where a user keeps them instead, and `trained_size` the size a preset was trained
    at where another is asked for; neither is part of a preset's own file.
    `image_condition`: what its transformer sees of the first frame: that frame followed by grey, or
    carried along the controls to every other.
    `makes_first_frame`: the model was trained to make a first frame from prompt and depth alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    models: tuple[str, ...] = ()
    num_frames: int
    fps: int
    height: int = Field(ge=16, le=8192)
    width: int = Field(ge=16, le=8192)
    size_multiple: int = Field(default=16, ge=1)
    history_frames: int = Field(default=8, ge=1)
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=1.0)
    flow_shift: float = Field(gt=0.0)
    negative_prompt: str = ""
    max_text_tokens: int = Field(ge=1)
    makes_first_frame: bool = True
    timestep_dtype: Literal["float32", "bfloat16"] = "float32"
    image_condition: Literal["first_frame", "carried"] = "first_frame"
    fit: Fit = "crop"
    control_height: int = Field(default=0, ge=0, le=8192)
    control_width: int = Field(default=0, ge=0, le=8192)
    track_grid: TrackGrid
    vocabulary: Vocabulary | None = None
    weights: Path | None = Field(default=None, exclude=True)
    trained_size: FrameSize | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _has_a_geometry(self) -> Self:
        ClipGeometry(self.num_frames, self.fps)
        return self

    @property
    def geometry(self) -> ClipGeometry:
        """Frames of a clip and frames per second."""
        return ClipGeometry(num_frames=self.num_frames, fps=self.fps)

    @property
    def size(self) -> FrameSize:
        """Of the video."""
        return FrameSize(width=self.width, height=self.height)

    @property
    def control_size(self) -> tuple[int, int]:
        """Height and width at which controls are stored."""
        return self.control_height or self.height, self.control_width or self.width

    @property
    def source_fit(self) -> Fit:
        """How a source video is brought to `control_size`; `fit` is for pictures made before.

        Where the two sizes differ, released extraction cuts the video to the aspect of the
        controls (spec 6.1), and released inference stretches those to the model's size.
        """
        return self.fit if self.control_size == (self.height, self.width) else "crop"


def with_size(preset: Preset, size: FrameSize | None) -> Preset:
    """Return a preset that makes videos of another size, the preset itself where None.

    Controls then have that size too: nothing is stretched on its way from one to the other, which
    is a habit of the released 832x480 and 640x352 alone. Pictures of another aspect are cropped.

    Raises:
        UsageError: The model cannot make this size; names the nearest ones it can.
    """
    if size is None or size == preset.size:
        return preset
    multiple = preset.size_multiple
    if size.width % multiple or size.height % multiple:
        smaller, larger = (
            f"{_fitting(size.width, multiple, up=up)}x{_fitting(size.height, multiple, up=up)}"
            for up in (False, True)
        )
        raise UsageError(
            f"--size {size.label}: both sides must be multiples of {multiple} for preset "
            f"{preset.name}.",
            hint=f"The nearest sizes that fit are {smaller} and {larger}.",
        )
    changes = {"width": size.width, "height": size.height, "fit": "crop"}
    changes |= {"control_width": 0, "control_height": 0, "trained_size": preset.size}
    return preset.model_copy(update=changes)


def _fitting(side: int, multiple: int, *, up: bool) -> int:
    fitting = (-(-side // multiple) if up else side // multiple) * multiple
    return min(max(fitting, _SHORTEST_SIDE), _LONGEST_SIDE)


# What a command says of anyway.
_SIZES = ("height", "width", "control_height", "control_width")


def preset_folder(name: str) -> Path:
    """Return the folder that holds `preset.json` of a preset, and the weights of an embedded one.

    Raises:
        SettingsError: There is no preset of this name.
        MissingResourceError: The preset's files are not installed.
    """
    if name not in PRESET_NAMES:
        near = difflib.get_close_matches(name, PRESET_NAMES, n=1)
        raise SettingsError(
            f"preset: there is no preset {briefly(name)}.",
            hint=f"Did you mean {near[0]!r}?" if near else f"Use {', '.join(PRESET_NAMES)}.",
        )
    folder = Path(str(files("longvie_cli") / "assets" / name))
    if not (folder / "preset.json").is_file():
        raise MissingResourceError(
            f"preset {name}: its files are missing from this installation of longvie.",
            hint="pip install --force-reinstall longvie",
        )
    return folder


def load_preset(name: str, weights: Path | None = None) -> Preset:
    """Return a preset by name.

    Weights that were trained with other numbers (steps, image condition, sizes) say so in a
    `preset.json` of their own, as `longvie train` and the embedded model's training write it; those
    numbers then take the place of the preset's.

    Args:
        name: Of one of ours.
        weights: Folder of the user's weights; None: those of the preset.

    Raises:
        SettingsError: There is no preset of this name, or a file is malformed.
        MissingResourceError: The preset's files are not installed.
    """
    preset = read_preset(preset_folder(name) / "preset.json", name)
    if weights is not None and (weights / "preset.json").is_file():
        own = read_preset(weights / "preset.json", str(weights))
        preset = own.model_copy(update={"name": name, "models": preset.models})
    return preset.model_copy(update={"weights": weights})


def numbers_of_weights(preset: Preset) -> str | None:
    """Return in words which numbers a preset has from its weights' own file; None where none."""
    if preset.weights is None:
        return None
    of_name = load_preset(preset.name).model_dump(exclude={"vocabulary", *_SIZES})
    own = load_preset(preset.name, preset.weights).model_dump(exclude={"vocabulary", *_SIZES})
    other = [f"{key} {own[key]}" for key in own if own[key] != of_name[key]]
    return f"By {preset.weights}/preset.json: {', '.join(other)}." if other else None


def read_preset(path: Path, name: str) -> Preset:
    """Return the preset in a file.

    Raises:
        SettingsError: It is malformed.
    """
    try:
        data = read_document(path, MAX_JSON_BYTES)
        parse_json(data)
        return Preset.model_validate_json(data)
    except ValidationError as error:
        raise SettingsError(f"{path.name} of preset {name}: {first_reason_of(error)}.") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path.name} of preset {name}: cannot be read ({error}).") from error
