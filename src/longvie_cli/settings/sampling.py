"""How the model is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from longvie_cli.errors import UsageError
from longvie_cli.settings.presets import Preset

DType = Literal["auto", "float32", "bfloat16", "float16"]
Offload = Literal["none", "once", "model", "group"]
Quantize = Literal["none", "fp8", "int8", "fp8-w8a8", "int8-w8a8"]
Attention = Literal["native", "cudnn", "flash", "flash3", "sage", "xformers"]
Fast = Literal["none", "steps", "guidance", "both"]
Compile = Literal["none", "blocks", "graphs"]
# Three are always evaluated, and of few steps each is too far from the one before.
FEWEST_FAST_STEPS = 8
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


class FrameSettings(BaseModel):
    """What of the sampling decides frames and may be set by itself; None where it is not said."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    num_inference_steps: int | None = Field(default=None, alias="steps", ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, alias="guidance", ge=1.0, le=50.0)
    negative_prompt: str | None = None
    depth_strength: Strength | None = None
    track_strength: Strength | None = None
    control_start: Fraction | None = None
    control_end: Fraction | None = None
    seed_per_clip: bool | None = None
    fast: Fast | None = None
    dtype: DType | None = None
    quantize: Quantize | None = None
    attention: Attention | Literal["auto"] | None = None
    compile: Compile | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_control_range(self.control_start or 0.0, self.control_end)
        return self

    def said(self) -> dict[str, Any]:
        """Return what is said, by the names that `Sampling` has for it."""
        names = FrameSettings.model_fields
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @classmethod
    def flags(cls) -> dict[str, str]:
        """Return the name of the flag of each of these fields, and after it the field's own."""
        fields = FrameSettings.model_fields.items()
        return {field.alias or name: name for name, field in fields}


class SamplingSettings(FrameSettings):
    """What a request says of the sampling; what it leaves out is as before, or as trained."""

    lora: Loras | None = None
    device: str = "auto"
    offload: Offload | Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model is run: decided to the last number, from the command to the pipeline.

    Args:
        num_inference_steps: Denoising steps of a clip.
        guidance_scale: Weight of the prompt against the negative one; 1 skips the latter.
        negative_prompt: What the video shall not show.
        seed: Draws the noise that all clips share.
        seed_per_clip: Whether each clip has noise of its own instead.
        depth_strength: Scale of the depth branch; 0 skips it.
        track_strength: Scale of the track branch; 0 skips it.
        control_start: Fraction of the steps before which both branches are skipped.
        control_end: Fraction of the steps from which on they are skipped again.
        fast: Which evaluations are foretold from those before, `models.step_cache.plan_steps`.
        device: Where the models run, a real device, no longer `auto`.
        dtype: Of transformer and text encoder, likewise a real one. The image encoder stays
            float32, and on a GPU the VAE does; on the CPU see `models.whole_video.suit_cpu`.
        offload: Where weights wait, see `engine.placement.place`; frames are the same. It alone
            may be `auto` before the models are loaded: what fits is known only then.
        quantize: Stores the transformer's blocks in 8 bits; `w8a8`: the layers of the main blocks
            that stand it multiply in 8 bits too, see `engine.eight_bit_products`.
        attention: A backend that `engine.placement.resolve_attention` returned.
        compile: Whether blocks are graphs of the compiler, see `engine.compilation`.
        loras: LoRA files and their scales, added up.
    """

    num_inference_steps: int
    guidance_scale: float
    negative_prompt: str
    seed: int = 0
    seed_per_clip: bool = False
    depth_strength: float = 1.0
    track_strength: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    fast: Fast = "none"
    device: str = "cpu"
    dtype: str = "float32"
    offload: Offload | Literal["auto"] = "none"
    quantize: Quantize = "none"
    attention: Attention = "native"
    compile: Compile = "none"
    loras: tuple[LoraFile, ...] = ()

    def __post_init__(self) -> None:
        _check_control_range(self.control_start, self.control_end)
        if self.fast in ("steps", "both") and self.num_inference_steps < FEWEST_FAST_STEPS:
            raise UsageError(
                f"--fast {self.fast}: {self.num_inference_steps} steps are too few to foretell "
                f"some; it takes --steps {FEWEST_FAST_STEPS} or more."
            )

    @classmethod
    def of(cls, preset: Preset, **chosen: Any) -> Self:
        """Return what a preset was trained with, on the CPU where nothing else is chosen."""
        trained: dict[str, Any] = {
            "num_inference_steps": preset.num_inference_steps,
            "guidance_scale": preset.guidance_scale,
            "negative_prompt": preset.negative_prompt,
        }
        return cls(**trained | chosen)

    @property
    def clip_arguments(self) -> dict[str, Any]:
        """What of it a call of the pipeline takes, under the same names."""
        return {
            name: getattr(self, name)
            for name in (
                "num_inference_steps",
                "guidance_scale",
                "depth_strength",
                "track_strength",
                "control_start",
                "control_end",
                "fast",
            )
        }

    @property
    def negative_prompt_read(self) -> str:
        """What is read of the negative prompt: without guidance nothing."""
        return "" if self.guidance_scale == 1 else self.negative_prompt

    @property
    def on_cpu(self) -> bool:
        """Whether the models run on the CPU."""
        return self.device.split(":")[0] == "cpu"

    @property
    def weights_in_words(self) -> str:
        """The type of the transformer's weights, and how its blocks are stored."""
        return self.dtype + ("" if self.quantize == "none" else f" + {self.quantize}")

    @property
    def multiplies_fp8(self) -> bool:
        """Whether the transformer's products are of float8 numbers."""
        return self.quantize == "fp8-w8a8"

    @property
    def eight_bit_type(self) -> Literal["fp8", "int8"] | None:
        """The type that blocks are stored in, if in 8 bits."""
        if self.quantize == "none":
            return None
        return "fp8" if self.quantize.startswith("fp8") else "int8"

    @property
    def multiplies_in_8_bits(self) -> bool:
        """Whether layers multiply in the type that they are stored in."""
        return self.quantize.endswith("-w8a8")

    @property
    def stored(self) -> dict[str, Any]:
        """What of it decides where and how weights are stored, as JSON values."""
        return {name: getattr(self, name) for name in ("offload", "quantize")}

    @property
    def of_memory(self) -> Self:
        """The same, but for what does not decide how much memory the models take."""
        kept = {"device": self.device, "dtype": self.dtype, **self.stored}
        return type(self)(num_inference_steps=1, guidance_scale=1.0, negative_prompt="", **kept)

    @property
    def placed(self) -> dict[str, Any]:
        """What of it decides how long one evaluation of the model takes, as JSON values."""
        names = ("dtype", "quantize", "attention", "compile", "offload")
        return {name: getattr(self, name) for name in names}

    def deciding(self) -> dict[str, Any]:
        """Return what decides frames, as JSON values by the names of the flags; LoRA not."""
        return {flag: getattr(self, name) for flag, name in FrameSettings.flags().items()}


def _check_control_range(start: float, end: float | None) -> None:
    """Raises UsageError where --control-start is not before --control-end."""
    if end is not None and start >= end:
        raise UsageError(f"--control-start {start:g}: it must be less than --control-end {end:g}.")
