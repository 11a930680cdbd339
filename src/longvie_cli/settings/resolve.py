"""Where a setting comes from: flag > LONGVIE_* > --config or ./longvie.yaml > user file > preset.

Only what nobody set is left to the defaults of the request. A setting keeps its origin, so that an
error names the flag, the variable or the file and key that holds the wrong value.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

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
from longvie_cli.settings.presets import preset_folder
from longvie_cli.settings.prompts import read_prompt_file
from longvie_cli.settings.requests import (
    DEPTH_MODELS,
    BenchRequest,
    ConvertModelsRequest,
    EvaluateRequest,
    ExtendRequest,
    ExtractControlsRequest,
    GenerateRequest,
    ModelsRequest,
    PrepareRequest,
    RedoRequest,
    Request,
    RunRequest,
    StitchRequest,
    flags_of,
)
from longvie_cli.settings.sampling import NO_LORA
from longvie_cli.settings.tracking import tracker_placed
from longvie_cli.settings.without_effect import settings_without_effect

COMMANDS: dict[str, type[Request]] = {
    "extract-controls": ExtractControlsRequest,
    "generate": GenerateRequest,
    "extend": ExtendRequest,
    "stitch": StitchRequest,
    "prepare": PrepareRequest,
    "bench": BenchRequest,
    "evaluate": EvaluateRequest,
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
    *("reference", "compare", "report"),
}
_ARGUMENTS = {
    "extract-controls": frozenset({"video"}),
    "evaluate": frozenset({"video"}),
}
# Read by the command line itself, before any request exists.
_CONSOLE_VARIABLES = {"json", "quiet", "verbose", "debug", "config"}
_PATH_KEYS = {
    *("video", "controls", "image", "first_frame_model", "weights", "run_dir", "live"),
    *("prompt_file", "captions", "captioner", "depth", "output", "previous", "inputs", "run"),
    *("picture", "reference", "compare", "report"),
}
# A request's name of what a command calls by a plainer one.
_FLAGS = {"new_prompt": "prompt", "new_seed": "seed"}
# What a value in a settings file may be, in the words of an error, the first that fits.
_KINDS_IN_WORDS = {bool: "true or false", int: "a whole number", float: "a number"}

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
            return flags_of([_FLAGS.get(key, key)])
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
    layers, warnings = _layers(command, flags, config, environment, working_folder)
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
    for key, reason in settings_without_effect(request).items():
        # In a file or variable it may be meant for other commands.
        if key in origins and origins[key].origin == "--":
            raise origins[key].error(key, f"it would do nothing: {reason}.")
    return request, warnings


def _layers(
    command: str,
    flags: Mapping[str, Any],
    config: Path | None,
    environment: Mapping[str, str],
    working_folder: Path,
) -> tuple[list[Layer], tuple[str, ...]]:
    """Return where settings of a command stand, the first the one that counts, and warnings."""
    # A flag that may be repeated and was not given is an empty list.
    given = {key: value for key, value in flags.items() if value not in (None, [], ())}
    layers = [Layer("--", given, arguments=_ARGUMENTS.get(command, frozenset()))]
    variables, warnings = _environment_layer(environment)
    layers.append(variables)
    local = working_folder / SETTINGS_FILE
    if config is not None:
        local = Path(os.path.expanduser(config))
    if config is not None or local.is_file():
        layers.append(_file_layer(local, command))
    user = platformdirs.user_config_path("longvie") / SETTINGS_FILE
    if user.is_file():
        layers.append(_file_layer(user, command))
    for layer in layers:
        if layer.folder is not None:
            _check_kinds(COMMANDS[command], layer)
    return layers, warnings


def _check_preset(values: dict[str, Any], origins: dict[str, Layer]) -> None:
    if "preset" not in values:
        return
    try:
        preset_folder(str(values["preset"]))
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
    """Return a value whose paths are found from the folder it is written in, `~` from home."""
    if isinstance(value, list | tuple) and key in ("lora", "inputs", "compare"):
        return [_located(key, item, layer) for item in value]
    if key == "lora" and isinstance(value, dict) and isinstance(value.get("path"), str):
        return value | {"path": _placed(value["path"], layer)}
    if not isinstance(value, str | Path):
        return value
    text = str(value)
    if key == "depth_model" and text not in DEPTH_MODELS:
        return _placed(text.removeprefix("path:"), layer)
    if key == "tracker":
        return tracker_placed(text, lambda folder: _placed(folder, layer))
    is_path = (
        key in _PATH_KEYS
        or (key == "camera" and text.lower().endswith((".yaml", ".yml")))
        or (key == "audio" and text not in ("none", "source"))
        or (key == "lora" and text != NO_LORA)
    )
    return _placed(text, layer) if is_path else value


def _placed(path: str, layer: Layer) -> str:
    if layer.folder is not None:
        return str(named_in(layer.folder, path))
    # Where there is no such user, `~x` is a name like another, as in a shell.
    return os.path.expanduser(path)


def _check_kinds(model: type[Request], layer: Layer) -> None:
    """Do nothing if what a settings file holds is written as what it is meant to be.

    Raises:
        SettingsError: `steps: true` or `seed: "7"`, say, or nothing at all.
    """
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    for key, value in layer.values.items():
        if value is None:
            raise layer.error(key, "it has no value; leave the line out for the default.")
        if key not in fields:
            continue
        allowed = _kinds_of(fields[key].annotation)
        if float in allowed:
            allowed = allowed | {int}
        fits = {bool: bool, int: int, float: float}.get(type(value), str)
        if fits is str and allowed - {bool, int, float, type(None)}:
            continue
        if fits not in allowed:
            words = [word for kind, word in _KINDS_IN_WORDS.items() if kind in allowed]
            wanted = words[-1] if words else "text; put it in quotes"
            written = str(value).lower() if fits is bool else briefly(value)
            raise layer.error(key, f"{written}: it must be {wanted}.")


def _kinds_of(annotation: Any) -> set[Any]:
    """Return the types that a field's annotation is made of."""
    if get_origin(annotation) is Literal:
        return {type(value) for value in get_args(annotation)}
    parts = [part for part in get_args(annotation) if isinstance(part, type) or get_args(part)]
    return set().union(*map(_kinds_of, parts)) if parts else {annotation}


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
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        # An empty prompt is the slip of a script; anything else that is empty is not set.
        if not variable.startswith(ENVIRONMENT_PREFIX) or (value == "" and key != "prompt"):
            continue
        if key in known:
            values[key] = value.split(",") if key == "lora" else value
        elif near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            right = f"{ENVIRONMENT_PREFIX}{near[0].upper()}"
            warnings.append(f"{variable} is no setting of longvie; did you mean {right}?")
    return Layer(ENVIRONMENT_PREFIX, values), tuple(warnings)


def _file_layer(path: Path, command: str) -> Layer:
    document = _read_yaml(path)
    values: dict[str, Any] = {}
    section: dict[str, Any] = {}
    for raw_key, value in document.items():
        key = str(raw_key).replace("-", "_")
        if str(raw_key) in COMMANDS:
            found = _section(path, str(raw_key), value)
            if raw_key == command:
                section = found
        elif key in _all_keys():
            _put(values, key, value, f"{path.name}: {raw_key}")
        else:
            raise _unknown(path, str(raw_key), _all_keys() | set(COMMANDS))
    return Layer(path.name, values | section, path.absolute().parent)


def _put(values: dict[str, Any], key: str, value: Any, label: str) -> None:
    if key in values:
        raise SettingsError(f"{label}: it is given twice, with - and with _.")
    values[key] = value


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
        _put(section, key, setting, f"{path.name}: {command}: {raw_key}")
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
        raise SettingsError(f"{path.name}: cannot be read: {reason}.") from error
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
