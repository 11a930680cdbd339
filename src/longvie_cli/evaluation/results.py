"""An evaluation as JSON values (`schema_version` 1) and as lines for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.evaluation.clips import VideoClip
from longvie_cli.evaluation.drift import Drift
from longvie_cli.evaluation.evaluation import Evaluation
from longvie_cli.evaluation.findings import findings
from longvie_cli.evaluation.reference import psnr_of
from longvie_cli.evaluation.seams import Step
from longvie_cli.result import aligned

_DIGITS = 6
# The same pictures have an infinite PSNR, which JSON lacks: they stand at this number of dB, and no
# others above it.
MOST_PSNR = 100.0


def as_json(found: Evaluation) -> dict[str, Any]:
    """Return what was found, as values that JSON has: no number is infinite or none."""
    video = found.inputs.video
    values = {
        "video": found.inputs.name,
        "frames": found.num_frames,
        "seconds": found.seconds,
        "fps": video.fps,
        "size": f"{video.width}x{video.height}",
        "clips": [_clip(found, clip) for clip in found.inputs.clips],
        "metrics": _metrics(found),
        "findings": [
            {
                "metric": finding.metric,
                "frame": finding.frame,
                "seconds": None if finding.frame is None else found.seconds_at(finding.frame),
                "text": finding.text,
            }
            for finding in findings(found)
        ],
        "methods": found.methods,
        "skipped": dict(sorted(found.skipped.items())),
    }
    plain: dict[str, Any] = _plain(values)
    return plain


def table(found: Sequence[Evaluation]) -> list[str]:
    """Return the lines that say what was found, the videos side by side."""
    rows = [("", *(_title(one) for one in found))]
    columns = [shown_values(one) for one in found]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows += [(name, *(column.get(name, "-") for column in columns)) for name in names]
    lines = aligned(rows)
    for one in found:
        said = findings(one)
        whose = f" in {one.inputs.name}" if len(found) > 1 else ""
        lines += ["", f"What stands out{whose}:" if said else f"Nothing stands out{whose}."]
        lines += [f"  {finding.text}" for finding in said]
    skipped = {name: reason for one in found for name, reason in one.skipped.items()}
    lines += ["", "Not measured:"]
    lines += [f"  {name}: {reason}" for name, reason in sorted(skipped.items())]
    return lines


def clip_means(
    clip: VideoClip, frames: NDArray[np.integer], values: NDArray[np.floating]
) -> float | None:
    """Return the mean of the values of a clip, None where it has none that is a number.

    Args:
        clip: The clip.
        frames: Which frame each value is of.
        values: [frames].
    """
    own = values[(frames >= clip.first_frame) & (frames < clip.end)]
    own = own[np.isfinite(own)]
    return float(own.mean()) if len(own) else None


def clip_values(found: Evaluation, clip: VideoClip) -> dict[str, float | None]:
    """Return the means of one clip, by quantity; those that were not measured are left out."""
    scan, pictures = found.scan, found.pictures
    every = np.arange(scan.num_frames)
    values = {
        "luma": clip_means(clip, every, scan.luma),
        "contrast": clip_means(clip, every, scan.contrast),
        "saturation": clip_means(clip, every, scan.saturation),
        "sharpness": clip_means(clip, pictures.frames, pictures.sharpness),
        "noise": clip_means(clip, pictures.frames, pictures.noise),
        "blockiness": clip_means(clip, pictures.frames, pictures.blockiness),
        "motion": clip_means(clip, every, scan.flow),
    }
    if found.colour_distances is not None:
        values["color"] = clip_means(clip, every, found.colour_distances)
    if found.depth is not None:
        correlations = found.depth.correlations
        values["depth_correlation"] = clip_means(clip, found.depth.frames, correlations)
    if found.tracks is not None:
        errors = np.array(found.tracks.errors)
        values["track_error"] = clip_means(clip, np.array(found.tracks.first_frames), errors)
    if found.scores is not None and found.alignment is not None and found.alignment.fps is None:
        error = clip_means(clip, found.scores.frames, found.scores.squared_errors)
        values["psnr"] = None if error is None else _psnr(psnr_of(error))
        values["ssim"] = clip_means(clip, found.scores.frames, found.scores.ssim)
    return values


def _clip(found: Evaluation, clip: VideoClip) -> dict[str, Any]:
    about = {} if clip.seed is None else {"prompt": clip.prompt, "seed": clip.seed}
    return {
        "index": clip.index,
        "first_frame": clip.first_frame,
        "frames": clip.frames,
        "start": found.seconds_at(clip.first_frame),
        **about,
        **clip_values(found, clip),
    }


def _metrics(found: Evaluation) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    if found.drifts:
        metrics["drift"] = {name: _drift(drift) for name, drift in found.drifts.items()}
    if found.steps is not None:
        metrics["seams"] = [_step(found, step) for step in found.steps]
    metrics["jumps"] = [_step(found, step) for step in found.jumps]
    if found.motion is not None:
        motion = found.motion
        ratio = motion.last_over_first
        metrics["motion"] = {
            "mean": motion.mean,
            **({} if ratio is None else {"last_over_first": ratio}),
            "freezes": [
                {
                    "first_frame": freeze.first_frame,
                    "frames": freeze.frames,
                    "start": found.seconds_at(freeze.first_frame),
                }
                for freeze in motion.freezes
            ],
        }
    if found.gaps:
        metrics["consistency"] = {
            "gaps": [
                {"seconds": gap.seconds, "similarity": gap.similarity, "pairs": gap.pairs}
                for gap in found.gaps
            ]
        }
    if control := _control(found):
        metrics["control"] = control
    if found.scores is not None:
        scores = found.scores
        metrics["reference"] = {
            "psnr": _psnr(scores.psnr),
            "identical": scores.psnr is None,
        }
        if np.isfinite(scores.ssim).any():
            metrics["reference"]["ssim"] = float(scores.ssim.mean())
        if found.vmaf is not None:
            metrics["reference"]["vmaf"] = found.vmaf
    return metrics


def _control(found: Evaluation) -> dict[str, Any]:
    control: dict[str, Any] = {}
    if found.depth is not None:
        correlations = {
            "depth_correlation": found.depth.correlation,
            "depth_correlation_elsewhere": found.depth.correlation_elsewhere,
        }
        control |= {
            "depth_l1": found.depth.l1,
            **{name: value for name, value in correlations.items() if value is not None},
            "depth_reliable": found.inputs.estimator_fits,
        }
    if found.tracks is not None:
        control |= {
            "track_error": found.tracks.error,
            "track_error_if_still": found.tracks.error_if_still,
        }
    return control


def _psnr(decibels: float | None) -> float:
    return MOST_PSNR if decibels is None else min(MOST_PSNR, decibels)


def _drift(drift: Drift) -> dict[str, Any]:
    change = {} if drift.change is None else {"change": drift.change}
    return {
        "start": drift.start,
        "end": drift.end,
        **change,
        "slope_per_minute": drift.slope_per_minute,
    }


def _step(found: Evaluation, step: Step) -> dict[str, Any]:
    cuts = {clip.first_frame for clip in found.inputs.clips if clip.starts_scene}
    return {
        "frame": step.frame,
        "seconds": found.seconds_at(step.frame),
        "score": step.score,
        "difference": step.difference,
        "warped": step.warped,
        "color": step.colour,
        "repeated": step.repeated,
        "cut": step.frame in cuts,
    }


def _title(found: Evaluation) -> str:
    video = found.inputs.video
    clips = "" if found.inputs.clips_unknown else f", {len(found.inputs.clips)} clips"
    return (
        f"{found.inputs.name} ({found.num_frames} frames, {found.seconds:.2f} s, "
        f"{video.width}x{video.height}{clips})"
    )


def shown_values(found: Evaluation) -> dict[str, str]:
    """Return the lines of a video, by what they are of."""
    return _shown_drift(found) | _shown_steps(found) | _shown_against(found)


def _shown_drift(found: Evaluation) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, drift in found.drifts.items():
        if name == "color":
            shown["color, delta E"] = f"{drift.change:.2f} ({drift.slope_per_minute:.3g} a minute)"
            continue
        change = "" if drift.change is None else f" ({drift.change:+.1%})"
        shown[name] = f"{drift.start:.4g} -> {drift.end:.4g}{change}"
    return shown


def _shown_steps(found: Evaluation) -> dict[str, str]:
    shown: dict[str, str] = {}
    if found.steps:
        scores = [step.score for step in found.steps]
        shown["seams, worst"] = f"{max(scores):.2f} of {len(scores)} (1.0 as inside clips)"
    if found.jumps:
        shown["jumps"] = str(len(found.jumps))
    if found.motion is not None:
        motion = found.motion
        ratio = "-" if motion.last_over_first is None else f"{motion.last_over_first:.2f}"
        shown["motion"] = f"{motion.mean:.2f} px a frame (end/start {ratio})"
        shown["freezes"] = str(len(motion.freezes))
    for gap in found.gaps:
        shown[f"similarity, {gap.seconds:g} s apart"] = f"{gap.similarity:.3f}"
    return shown


def _shown_against(found: Evaluation) -> dict[str, str]:
    """Return the lines of what a video is measured against: its controls and its reference."""
    shown: dict[str, str] = {}
    if found.depth is not None:
        depth = found.depth
        sure = "" if found.inputs.estimator_fits else ", unreliable"
        agreed = "-" if depth.correlation is None else f"{depth.correlation:.2f}"
        shown["depth"] = f"L1 {depth.l1:.3f}, correlation {agreed}{sure}"
    if found.tracks is not None:
        tracks = found.tracks
        still = f"{tracks.error_if_still:.2f} if nothing moved"
        shown["tracks"] = f"{tracks.error:.2f} px off ({still})"
    if found.scores is not None:
        psnr = found.scores.psnr
        shown["PSNR"] = "identical" if psnr is None else f"{psnr:.2f} dB"
        if np.isfinite(found.scores.ssim).any():
            shown["SSIM"] = f"{found.scores.ssim.mean():.4f}"
    if found.vmaf is not None:
        shown["VMAF"] = f"{found.vmaf:.1f}"
    return shown


def _plain(value: Any) -> Any:
    """Return a value with Python's own numbers, short, and None for those that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
