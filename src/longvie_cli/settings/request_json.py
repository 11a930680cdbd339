"""A request as JSON for the run folder, from which the same job can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from longvie_cli.errors import LongVieError, OutputConflictError
from longvie_cli.settings.camera_path import CameraPath
from longvie_cli.settings.requests import DEPTH_MODELS, ExtendRequest, GenerateRequest

# These say how one call was meant, not what the run is.
_OF_ONE_CALL = {"no_clobber", "from_clip"}
_PATH_PREFIX = "path:"

RunRequests = GenerateRequest | ExtendRequest
_KINDS: dict[str, type[GenerateRequest] | type[ExtendRequest]] = {
    "generate": GenerateRequest,
    "extend": ExtendRequest,
}


def request_json(request: BaseModel) -> dict[str, Any]:
    """Return every field of a request as JSON values, all paths absolute."""
    values = {name: getattr(request, name) for name in type(request).model_fields}
    stored = {name: _json(value) for name, value in values.items() if name not in _OF_ONE_CALL}
    model = stored.get("depth_model")
    if isinstance(model, str) and model not in DEPTH_MODELS:
        stored["depth_model"] = str(Path(model.removeprefix(_PATH_PREFIX)).absolute())
    if (sound := sound_file(stored)) is not None:
        stored["audio"] = str(sound.absolute())
    return stored


def request_of_json(command: str, stored: Mapping[str, Any], where: Path) -> RunRequests:
    """Return the request that `request_json` wrote down.

    Args:
        command: `generate` or `extend`.
        stored: What was written.
        where: The file it comes from, for messages.

    Raises:
        OutputConflictError: It holds a setting this version does not know, or is damaged.
    """
    try:
        return _KINDS[command].model_validate(dict(stored))
    except (ValidationError, LongVieError, KeyError) as reason:
        text = " ".join(str(reason).split())
        raise OutputConflictError(
            f"{where}: this request cannot be read; a newer longvie wrote it, or it is damaged "
            f"({text[:200]}).",
            hint="Repeat the command that began the run.",
        ) from reason


def files_of(stored: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """Return what a recorded request reads, as flag and absolute path."""
    names = ("previous", "video", "controls", "image", "first_frame_model", "weights", "depth")
    found = [(name, Path(stored[name])) for name in names if stored.get(name)]
    loras = [lora for lora in stored.get("lora") or () if isinstance(lora, dict)]
    found += [("lora", Path(lora["path"])) for lora in loras]
    model = stored.get("depth_model")
    if isinstance(model, str) and model not in DEPTH_MODELS:
        found.append(("depth_model", Path(model)))
    if (sound := sound_file(stored)) is not None:
        found.append(("audio", sound))
    return [
        ("PREVIOUS.mp4" if name == "previous" else f"--{name.replace('_', '-')}", path)
        for name, path in found
    ]


def sound_file(stored: Mapping[str, Any]) -> Path | None:
    """Return the file a recorded request takes its sound from, None if it names none."""
    audio = stored.get("audio")
    return None if audio in (None, "none", "source") else Path(audio)


def _json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, CameraPath):
        return str(value)
    if isinstance(value, BaseModel):
        return {name: _json(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    return value
