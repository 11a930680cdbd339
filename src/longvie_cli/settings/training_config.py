"""The file of `longvie train`: what is trained on what, and all settings of the stage."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from longvie_cli.disk.containment import named_in
from longvie_cli.disk.documents import (
    MAX_YAML_BYTES,
    decoded,
    one_line,
    parse_yaml,
    read_document,
)
from longvie_cli.errors import SettingsError
from longvie_cli.settings.presets import DEFAULT_PRESET
from longvie_cli.settings.training import BranchStart, Settings, TrainingSettings

FROM_NOTHING = "nothing"
"""`start_from` of a base with random weights."""

ExportFormat = Literal["preset", "released"]

# What YAML 1.1 takes for text, and everybody else for a number.
_NUMBER_WITHOUT_POINT = re.compile(r"[+-]?\d+[eE][+-]?\d+")


class Worlds(Settings):
    """Flights over procedural landscapes, with exact depth and tracks.

    Args:
        seed: Of the landscapes.
        flights: How many clips there are; None: without end.
    """

    seed: int = Field(default=0, ge=0, lt=2**63)
    flights: int | None = Field(default=None, ge=1)


class Data(Settings):
    """Where samples come from: one of the two.

    Args:
        worlds: Procedural landscapes.
        folder: What `longvie prepare` made, as written.
    """

    worlds: Worlds | None = None
    folder: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.worlds is None) == (self.folder is None):
            raise ValueError("name one of `worlds: {}` and `folder: DATA`")
        return self


class TrainingConfig(TrainingSettings):
    """All that a stage is trained by. Paths are as written, relative to the file's folder.

    Args:
        preset: `tiny`, `longvie2`, or a folder with `preset.json`: sizes, frames, sampling.
        start_from: Run folder of an earlier stage, one of its checkpoints, or a folder of weights
            (ours, the published files, or a Wan base alone); `nothing` for a random base (stage
            `base`); the preset's own weights where not given.
        branches: Where the control branches of stage `control` start (paper: `half_copy`).
        data: What is trained on.
        validation: Samples kept aside; not validated without.
        history_frames: Most frames before a clip in stage `history` (paper and code 16).
        device: `auto`, `cpu`, `cuda`; each process of torchrun takes a GPU of its own.
        export: What is written at the end: `preset`, a folder for `generate --weights`;
            `released`, the two files of `Vchitect/LongVie2`.
    """

    preset: str = Field(default=DEFAULT_PRESET, min_length=1)
    start_from: str | None = Field(default=None, min_length=1)
    branches: BranchStart = "half_copy"
    data: Data
    validation: Data | None = None
    history_frames: int = Field(default=16, ge=4, le=80, multiple_of=4)
    device: str = "auto"
    export: tuple[ExportFormat, ...] = ("preset", "released")


def read_training_config(path: Path) -> TrainingConfig:
    """Return the settings in a file.

    Raises:
        SettingsError: It is missing, damaged, too large, or holds something unknown or wrong.
    """
    try:
        document = parse_yaml(decoded(read_document(path, MAX_YAML_BYTES)))
    except FileNotFoundError as error:
        raise SettingsError(f"--config {path}: no such file.") from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path.name}: cannot be read: {one_line(str(error))}.") from error
    if not isinstance(document, dict):
        raise SettingsError(
            f"{path.name}: expected settings by name, as in `data: {{worlds: {{}}}}`."
        )
    try:
        # As JSON, strictly: no number is taken for a switch, and lists stand for tuples.
        text = json.dumps(_with_numbers(document))
        return TrainingConfig.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise _named(path, error) from error


def place_named(config: Path, key: str, name: str) -> Path:
    """Return the path that the file `config` names at a key.

    Raises:
        SettingsError: It leads out of the file's folder by `..` or a link.
    """
    try:
        return named_in(config.absolute().parent, name)
    except ValueError as error:
        raise SettingsError(f"{config.name}: {key}: {name}: {error}.") from error


def _with_numbers(value: Any) -> Any:
    """Return what YAML was read as, as JSON knows it: numbers without a point, dates as text."""
    if isinstance(value, dict):
        return {str(key): _with_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner) for inner in value]
    if isinstance(value, str) and _NUMBER_WITHOUT_POINT.fullmatch(value):
        return float(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _named(path: Path, error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    where = one_line(": ".join((path.name, *place)), 200)
    if first["type"] == "extra_forbidden":
        known = _keys_at(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        return SettingsError(
            f"{where}: there is no such setting.",
            hint=f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}.",
        )
    if first["type"] == "missing" and place == ["data"]:
        return SettingsError(
            f"{where}: say what is trained on.",
            hint="`data: {worlds: {}}`, or `data: {folder: DATA}` of longvie prepare.",
        )
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return SettingsError(f"{where}: {one_line(reason[:1].lower() + reason[1:])}.")


def _keys_at(place: list[str]) -> list[str]:
    """Return the settings that there are at a place of the file."""
    model: type[BaseModel] = TrainingConfig
    for key in place:
        annotation = model.model_fields[key].annotation
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        model = next(
            each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)
        )
    return sorted(model.model_fields)
