"""Where a setting comes from: flag > LONGVIE_* > --config or ./longvie.yaml > user file > preset.

Only what nobody set is left to the defaults of the request. A setting keeps its origin, so that an
error names the flag, the variable or the file and key that holds the wrong value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from pydantic import ValidationError

from longvie_cli.disk.containment import named_in
from longvie_cli.disk.documents import (
    MAX_YAML_BYTES,
    briefly,
    decoded,
    one_line,
    parse_yaml,
    read_document,
)
from longvie_cli.errors import LongVieError, SettingsError, UsageError
from longvie_cli.settings.idle import idle_settings
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.prompts import read_prompt_file
from longvie_cli.settings.requests import (
    DEPTH_MODELS,
    ConvertModelsRequest,
    ExtendRequest,
    ExtractControlsRequest,
    GenerateRequest,
    ModelsRequest,
    RedoRequest,
    Request,
    RunRequest,
    StitchRequest,
    flags_of,
)
from longvie_cli.settings.sampling import NO_LORA
from longvie_cli.settings.tracking import tracker_folder_resolved

COMMANDS: dict[str, type[Request]] = {
    "extract-controls": ExtractControlsRequest,
    "generate": GenerateRequest,
    "extend": ExtendRequest,
    "stitch": StitchRequest,
    "redo": RedoRequest,
    "run": RunRequest,
    "models": ModelsRequest,
    "models-convert": ConvertModelsRequest,
}
SETTINGS_FILE = "longvie.yaml"
ENVIRONMENT_PREFIX = "LONGVIE_"

# These name the job itself and are always given on the command line.
_ONLY_ON_THE_COMMAND_LINE = {
    *("output", "previous", "inputs", "prompts", "names"),
    *("run", "clip", "new_prompt", "new_seed", "from_clip"),
}
_ARGUMENTS = {"extract-controls": frozenset({"video"})}
# Read by the command line itself, before any request exists.
_CONSOLE_VARIABLES = {"json", "quiet", "verbose", "debug", "config"}
_PATH_KEYS = {
    "video",
    "controls",
    "image",
    "first_frame_model",
    "weights",
    "run_dir",
    "live",
    "prompt_file",
    "depth",
}

R = TypeVar("R", bound=Request)


@dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Args:
        origin: What the user calls the place, up to the key: `--`, `LONGVIE_`, or the file's name.
        values: Settings by key, as written.
        folder: Folder that relative paths in it start from; None for the working directory.
        arguments: Keys that are given without a flag here.
    """

    origin: str
    values: Mapping[str, Any]
    folder: Path | None = None
    arguments: frozenset[str] = frozenset()

    def label(self, key: str) -> str:
        """Return how the user wrote this key here."""
        if key in self.arguments:
            return key.upper()
        if self.origin == "--":
            return flags_of([key])
        if self.origin == ENVIRONMENT_PREFIX:
            return f"{ENVIRONMENT_PREFIX}{key.upper()}"
        return f"{self.origin}: {key}"

    def error(self, key: str, reason: str, hint: str = "") -> LongVieError:
        """Return the error that blames this place for a value."""
        kind = UsageError if self.origin == "--" else SettingsError
        return kind(f"{self.label(key)}: {reason}", hint=hint)


def resolve(
    model: type[R],
    flags: Mapping[str, Any],
    *,
    config: Path | None,
    environment: Mapping[str, str],
    working_folder: Path,
) -> tuple[R, tuple[str, ...]]:
    """Return the request of a command and warnings about misspelt variables.

    Args:
        model: The request to make, one of `COMMANDS`.
        flags: Values given on the command line by key; None where a flag was not given.
        config: The settings file named by `--config`, which then stands for `./longvie.yaml`.
        environment: The process environment.
        working_folder: Where `longvie.yaml` is looked for.

    Raises:
        UsageError: A flag has a wrong value, or flags contradict each other.
        SettingsError: A file or variable holds something unknown or wrong.
    """
    try:
        str(working_folder).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{working_folder}: the name of this folder is no UTF-8 text.",
            hint="Rename it, or work in another one.",
        ) from error
    command = next(name for name, request in COMMANDS.items() if request is model)
    # A flag that may be repeated and was not given is an empty list.
    given = {key: value for key, value in flags.items() if value not in (None, [], ())}
    layers = [Layer("--", given, arguments=_ARGUMENTS.get(command, frozenset()))]
    variables, warnings = _environment_layer(environment)
    layers.append(variables)
    local = config if config is not None else working_folder / SETTINGS_FILE
    if config is not None or local.is_file():
        layers.append(_file_layer(local, command))
    user = platformdirs.user_config_path("longvie") / SETTINGS_FILE
    if user.is_file():
        layers.append(_file_layer(user, command))

    keys = _keys(model)
    values, origins = _merge(layers, keys | _ONLY_ON_THE_COMMAND_LINE, model.exclusive_groups)
    if (prompt_file := values.pop("prompt_file", None)) is not None:
        if not isinstance(prompt_file, str | Path):
            raise origins["prompt_file"].error(
                "prompt_file", f"{briefly(prompt_file)}: it is no file name."
            )
        values["prompts"] = read_prompt_file(Path(prompt_file))
    _check_preset(values, origins)
    request = _build(model, values, origins)
    for key, reason in idle_settings(request).items():
        # In a file or variable it may be meant for other commands.
        if key in origins and origins[key].origin == "--":
            raise origins[key].error(key, f"it would do nothing: {reason}.")
    return request, warnings


def _check_preset(values: dict[str, Any], origins: dict[str, Layer]) -> None:
    if "preset" not in values:
        return
    try:
        load_preset(str(values["preset"]))
    except SettingsError as error:
        raise origins["preset"].error("preset", error.message, error.hint) from error


def _merge(
    layers: list[Layer], keys: Iterable[str], groups: Sequence[tuple[str, ...]]
) -> tuple[dict[str, Any], dict[str, Layer]]:
    known = set(keys)
    values: dict[str, Any] = {}
    origins: dict[str, Layer] = {}
    for layer in layers:
        taken = set(values)
        for key, value in layer.values.items():
            shared = [group for group in groups if key in group]
            hidden = any(rival in taken for group in shared for rival in group)
            if key not in known or key in taken or hidden:
                continue
            for group in shared:
                rivals = [k for k in group if layer.values.get(k) not in (None, False)]
                if len(rivals) > 1:
                    names = ", ".join(layer.label(rival) for rival in rivals)
                    raise _kind(layer)(f"{names}: pass only one of them.")
            try:
                values[key] = _located(key, value, layer)
            except ValueError as error:
                raise layer.error(key, f"{briefly(value)}: {error}.") from error
            origins[key] = layer
    return values, origins


def _located(key: str, value: Any, layer: Layer) -> Any:
    if layer.folder is None:
        return value
    if key == "lora":
        several = value if isinstance(value, list) else [value]
        return [_located_lora(item, layer.folder) for item in several]
    if not isinstance(value, str):
        return value
    if key == "depth_model" and value not in DEPTH_MODELS:
        return str(named_in(layer.folder, value.removeprefix("path:")))
    is_path_file = key == "camera" and value.lower().endswith((".yaml", ".yml"))
    if key in _PATH_KEYS or is_path_file or (key == "audio" and value not in ("none", "source")):
        return str(named_in(layer.folder, value))
    if key == "tracker":
        return tracker_folder_resolved(value, layer.folder)
    return value


def _located_lora(value: Any, folder: Path) -> Any:
    if isinstance(value, dict) and "path" in value:
        return value | {"path": _located_lora(str(value["path"]), folder)}
    if not isinstance(value, str) or value == NO_LORA:
        return value
    return str(named_in(folder, value))


def _kind(layer: Layer) -> type[LongVieError]:
    return UsageError if layer.origin == "--" else SettingsError


def _build(model: type[R], values: dict[str, Any], origins: dict[str, Layer]) -> R:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = _plain(first["msg"])
        if key in values:
            reason = f"{briefly(first.get('input'))}: {reason}."
        if key in origins:
            raise origins[key].error(key, reason) from error
        raise UsageError(f"{flags_of([key])}: {reason}") from error


def _plain(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _environment_layer(environment: Mapping[str, str]) -> tuple[Layer, tuple[str, ...]]:
    known = _all_keys() | _CONSOLE_VARIABLES
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or value == "":
            continue
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key in known:
            values[key] = value.split(",") if key == "lora" else value
        elif near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            right = f"{ENVIRONMENT_PREFIX}{near[0].upper()}"
            warnings.append(f"{variable} is no setting of longvie; did you mean {right}?")
    return Layer(ENVIRONMENT_PREFIX, values), tuple(warnings)


def _file_layer(path: Path, command: str) -> Layer:
    document = _read_yaml(path)
    values: dict[str, Any] = {}
    for raw_key, value in document.items():
        key = str(raw_key).replace("-", "_")
        if str(raw_key) in COMMANDS:
            section = _section(path, str(raw_key), value)
            if raw_key == command:
                values |= section
        elif key in _all_keys():
            values.setdefault(key, value)
        else:
            raise _unknown(path, str(raw_key), _all_keys() | set(COMMANDS))
    return Layer(path.name, values, path.absolute().parent)


def _section(path: Path, command: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SettingsError(
            f"{path.name}: {command}: expected settings by name, not {briefly(value)}."
        )
    keys = _keys(COMMANDS[command])
    section: dict[str, Any] = {}
    for raw_key, setting in value.items():
        key = str(raw_key).replace("-", "_")
        if key not in keys:
            raise _unknown(path, f"{command}: {raw_key}", keys, str(raw_key))
        section[key] = setting
    return section


def _unknown(path: Path, label: str, known: set[str], key: str | None = None) -> SettingsError:
    near = difflib.get_close_matches((key or label).replace("-", "_"), known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(sorted(known))}."
    return SettingsError(
        f"{path.name}: {one_line(label, 80)}: there is no such setting.", hint=hint
    )


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        document = parse_yaml(decoded(read_document(path, MAX_YAML_BYTES)))
    except FileNotFoundError as error:
        raise SettingsError(f"--config {path}: no such file.") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path.name}: cannot be read as YAML: {reason}.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{path.name}: expected settings by name, as in `seed: 7`.")
    return document


def _keys(model: type[Request]) -> set[str]:
    names = {field.alias or name for name, field in model.model_fields.items()}
    if "prompts" in names:
        names.add("prompt_file")
    return names - _ONLY_ON_THE_COMMAND_LINE


def _all_keys() -> set[str]:
    return set().union(*(_keys(model) for model in COMMANDS.values()))
