"""What was measured of the engines: medians, rates, differences, and the table that shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from longvie_cli.benchmarking.engine_run import ClipTimes, Task
from longvie_cli.benchmarking.machine import Roof
from longvie_cli.benchmarking.stages import IN_THE_TRANSFORMER, STAGES
from longvie_cli.result import aligned
from longvie_cli.settings.sampling import Sampling

REFERENCE = "reference"


@dataclass(frozen=True)
class EngineResult:
    """What was found of one engine, medians over its clips.

    Args:
        engine: Its name.
        sampling: How it ran.
        seconds_per_clip: Controls read, encoded, denoised, decoded and written.
        seconds_per_step: Of a denoising step.
        stages: Seconds of each of `STAGES` in a clip.
        peak_memory_bytes: The most of any clip.
        flops: Of a clip, by stage, those of the reference path.
        roof: What the device does in the engine's type.
        max_difference: Largest difference of the latents to those of the reference; None where
            that was not among the engines.
        psnr: Of the latents against the reference's, their range as the peak, in dB; None where
            there is no reference or no difference.
    """

    engine: str
    sampling: Sampling
    seconds_per_clip: float
    seconds_per_step: float
    stages: Mapping[str, float]
    peak_memory_bytes: int
    flops: Mapping[str, int]
    roof: Roof
    max_difference: float | None
    psnr: float | None

    def rate(self, stage: str) -> float | None:
        """Return the operations a second of a stage; None where it has none or takes no time."""
        seconds = self.stages[stage]
        operations = self.flops.get(stage, 0)
        return operations / seconds if operations and seconds > 0 else None

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        rates = {stage: rate for stage in self.stages if (rate := self.rate(stage)) is not None}
        peak = self.roof.flops_per_second
        return {
            "engine": self.engine,
            **self.sampling.placed,
            "seconds_per_clip": self.seconds_per_clip,
            "seconds_per_step": self.seconds_per_step,
            "stages": dict(self.stages),
            "peak_memory_bytes": self.peak_memory_bytes,
            "flops": sum(self.flops.values()),
            "stage_flops": dict(self.flops),
            "flops_per_second": rates,
            "share_of_roofline": {stage: rate / peak for stage, rate in rates.items()},
            "roofline": {
                "flops_per_second": peak,
                "bytes_per_second": self.roof.bytes_per_second,
            },
            "max_difference": self.max_difference,
            "psnr": self.psnr,
        }


def engine_results(
    tasks: Sequence[Task],
    times: Mapping[str, Sequence[ClipTimes]],
    flops: Mapping[str, int],
    roofs: Mapping[str, Roof],
) -> list[EngineResult]:
    """Return what was found of each engine, in the order of `tasks`.

    Args:
        tasks: One an engine; their files of latents are read.
        times: Of each engine's clips.
        flops: Of a clip, by stage.
        roofs: By engine.
    """
    latents = {task.engine: torch.load(task.latents, weights_only=True) for task in tasks}
    expected = latents.get(REFERENCE)
    results = []
    for task in tasks:
        clips = times[task.engine]
        stages = {stage: median(clip.stages[stage] for clip in clips) for stage in STAGES}
        steps = task.sampling.num_inference_steps
        largest, psnr = (None, None)
        if expected is not None:
            largest, psnr = _differences(latents[task.engine], expected)
        results.append(
            EngineResult(
                task.engine,
                task.sampling,
                median(clip.seconds for clip in clips),
                sum(stages[stage] for stage in IN_THE_TRANSFORMER) / steps,
                stages,
                max(clip.peak_memory_bytes for clip in clips),
                flops,
                roofs[task.engine],
                largest,
                psnr,
            )
        )
    return results


def _differences(ours: torch.Tensor, expected: torch.Tensor) -> tuple[float, float | None]:
    error = float((ours - expected).square().mean())
    span = float(expected.max() - expected.min())
    psnr = 10 * math.log10(span * span / error) if error > 0 and span > 0 else None
    return float((ours - expected).abs().max()), psnr


def table(results: Sequence[EngineResult]) -> list[str]:
    """Return the lines of a table for people: the engines, and the stages of each."""
    first = results[0]
    rows = [("ENGINE", "TYPE", "S/CLIP", "S/STEP", "SPEED", "MEMORY", "DIFFERENCE")]
    for result in results:
        rows.append(
            (
                result.engine,
                result.sampling.weights_in_words,
                f"{result.seconds_per_clip:.2f}",
                f"{result.seconds_per_step:.3f}",
                f"{first.seconds_per_clip / result.seconds_per_clip:.2f}x",
                f"{result.peak_memory_bytes / 1e9:.2f} GB",
                _difference(result),
            )
        )
    stages = [("STAGE", *(f"{result.engine.upper()} S (TFLOP/S, OF PEAK)" for result in results))]
    for stage in STAGES:
        stages.append((stage.replace("_", " "), *(_stage(result, stage) for result in results)))
    return [*aligned(rows), "", *aligned(stages)]


def _difference(result: EngineResult) -> str:
    if result.max_difference is None or result.engine == REFERENCE:
        return "-"
    quality = "" if result.psnr is None else f" ({result.psnr:.0f} dB)"
    return f"{result.max_difference:.2g}{quality}"


def _stage(result: EngineResult, stage: str) -> str:
    seconds, rate = f"{result.stages[stage]:.3f}", result.rate(stage)
    if rate is None:
        return seconds
    share = rate / result.roof.flops_per_second
    return f"{seconds} ({rate / 1e12:.3g}, {share:.0%})"
