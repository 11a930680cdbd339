"""How the model is run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from longvie_cli.errors import UsageError

DType = Literal["auto", "float32", "bfloat16", "float16"]


Offload = Literal["none", "model", "group"]


Quantize = Literal["none", "fp8", "int8"]


Attention = Literal["native", "cudnn", "flash", "flash3", "sage", "xformers"]


Strength = Annotated[float, Field(ge=0.0, le=4.0)]


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


NO_LORA = "none"


class LoraFile(BaseModel):
    """A LoRA and its scale, as in `style.safetensors:0.8`; 1 where no scale is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    scale: float = Field(default=1.0, ge=-10.0, le=10.0, allow_inf_nan=False, strict=True)


def _lora_files(value: Any) -> Any:
    """Return LoRA files written as `PATH[:SCALE]`, one or several, as fields; `none` is none."""
    written = [value] if isinstance(value, str | dict) else value
    if not isinstance(written, list | tuple):
        return value
    if list(written) == [NO_LORA]:
        return ()
    return [_lora_file(item) if isinstance(item, str) else item for item in written]


def _lora_file(text: str) -> dict[str, Any]:
    path, colon, scale = text.rpartition(":")
    try:
        return {"path": path, "scale": float(scale)} if colon and path else {"path": text}
    except ValueError:
        return {"path": text}


Loras = Annotated[tuple[LoraFile, ...], BeforeValidator(_lora_files)]


def check_control_range(start: float, end: float) -> None:
    """Raises UsageError where --control-start is not before --control-end."""
    if start >= end:
        raise UsageError(f"--control-start {start:g}: it must be less than --control-end {end:g}.")
