"""What stands out in an evaluation, in words, with the place: thresholds of docs/evaluation.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from longvie_cli.evaluation.evaluation import Evaluation
from longvie_cli.evaluation.seams import VISIBLE_SCORE
from longvie_cli.timeline import timecode

# A relative change from the first to the last 15 % that is seen when the two are laid side by side.
CHANGED = {
    "luma": 0.15,
    "contrast": 0.20,
    "saturation": 0.25,
    "sharpness": 0.35,
    "noise": 1.0,
    "blockiness": 0.20,
}
# CIELAB: 2.3 is just noticeable, 10 is another colour.
CHANGED_COLOUR = 8.0
# Changes of smaller quantities are of the measure.
_FLOORS = {"noise": 0.5, "sharpness": 0.3, "saturation": 4.0, "contrast": 4.0}
MOTION_LOST, MOTION_GAINED = 0.5, 2.0
# Similarity after a minute, or at the longest gap, against that after a second.
SIMILARITY_LOST = 0.10
DEPTH_CORRELATION, TRACK_ERROR_SHARE = 0.6, 0.02
_MOST_OF_A_KIND = 10


@dataclass(frozen=True)
class Finding:
    """Something that stands out.

    Args:
        metric: Its name in `metrics`.
        text: What it is, in one sentence.
        frame: Where to look; None where it is of the whole video.
    """

    metric: str
    text: str
    frame: int | None = None


def findings(found: Evaluation) -> list[Finding]:
    """Return what stands out, by metric and then by place."""
    return [*_drift(found), *_seams(found), *_motion(found), *_consistency(found), *_control(found)]


def _drift(found: Evaluation) -> list[Finding]:
    said = []
    last = found.num_frames - 1
    for name, limit in CHANGED.items():
        drift = found.drifts.get(name)
        if drift is None or drift.change is None or abs(drift.change) < limit:
            continue
        if max(drift.start, drift.end) < _FLOORS.get(name, 0.0):
            continue
        said.append(
            Finding(
                f"drift.{name}",
                f"{name} goes from {drift.start:.4g} to {drift.end:.4g} ({drift.change:+.0%}).",
                last,
            )
        )
    colour = found.drifts.get("color")
    if colour is not None and colour.change is not None and colour.change >= CHANGED_COLOUR:
        text = f"the mean colour ends {colour.change:.1f} delta E from where it begins."
        said.append(Finding("drift.color", text, last))
    return said


def _seams(found: Evaluation) -> list[Finding]:
    cuts = {clip.first_frame for clip in found.inputs.clips if clip.starts_scene}
    steps = [step for step in found.steps or () if step.frame not in cuts]
    visible = sorted(steps, key=lambda step: -step.score)[:_MOST_OF_A_KIND]
    said = [
        Finding(
            "seams",
            f"the seam at {_at(found, step.frame)} can be seen: {step.score:.1f} times a step "
            "inside clips.",
            step.frame,
        )
        for step in sorted(visible, key=lambda step: step.frame)
        if step.score > VISIBLE_SCORE
    ]
    said += [
        Finding(
            "seams",
            f"the clip at {_at(found, step.frame)} begins with the last frame once more.",
            step.frame,
        )
        for step in steps[:_MOST_OF_A_KIND]
        if step.repeated
    ]
    worst = sorted(found.jumps, key=lambda step: -step.score)[:_MOST_OF_A_KIND]
    said += [
        Finding(
            "jumps",
            f"a jump at {_at(found, step.frame)}: {step.score:.1f} times a usual step.",
            step.frame,
        )
        for step in sorted(worst, key=lambda step: step.frame)
    ]
    return said


def _motion(found: Evaluation) -> list[Finding]:
    motion = found.motion
    if motion is None:
        return []
    longest = sorted(motion.freezes, key=lambda freeze: -freeze.frames)[:_MOST_OF_A_KIND]
    said = [
        Finding(
            "motion.freezes",
            f"the picture stands still from {_at(found, freeze.first_frame)} on for "
            f"{freeze.frames} frames ({freeze.frames / found.inputs.video.fps:.1f} s).",
            freeze.first_frame,
        )
        for freeze in sorted(longest, key=lambda freeze: freeze.first_frame)
    ]
    ratio = motion.last_over_first
    if ratio is not None and not MOTION_LOST <= ratio <= MOTION_GAINED:
        text = f"at the end {ratio:.2g} times as much moves as at the beginning."
        said.append(Finding("motion.last_over_first", text, found.num_frames - 1))
    return said


def _consistency(found: Evaluation) -> list[Finding]:
    near = next((gap for gap in found.gaps if gap.seconds >= 1), None)
    if near is None or found.gaps[-1] is near:
        return []
    far = found.gaps[-1]
    if near.similarity - far.similarity < SIMILARITY_LOST:
        return []
    return [
        Finding(
            "consistency",
            f"pictures {far.seconds:g} s apart are less alike ({far.similarity:.2f}) than those "
            f"{near.seconds:g} s apart ({near.similarity:.2f}).",
        )
    ]


def _control(found: Evaluation) -> list[Finding]:
    said = []
    depth, tracks = found.depth, found.tracks
    agreed = None if depth is None else depth.correlation
    if (
        depth is not None
        and agreed is not None
        and found.inputs.estimator_fits
        and agreed < DEPTH_CORRELATION
    ):
        numbers = np.nan_to_num(depth.correlations, nan=np.inf)
        worst = int(depth.frames[int(numbers.argmin())])
        text = (
            "near and far are the other way round than the control has them"
            if agreed < 0
            else "the depth follows its control loosely"
        )
        said.append(Finding("control.depth_correlation", f"{text} ({agreed:.2f}).", worst))
    video = found.inputs.video
    if tracks is not None and tracks.error > TRACK_ERROR_SHARE * max(video.height, video.width):
        worst = tracks.first_frames[max(range(len(tracks.errors)), key=tracks.errors.__getitem__)]
        text = f"points are {tracks.error:.1f} pixels from where the control has them."
        said.append(Finding("control.track_error", text, worst))
    return said


def _at(found: Evaluation, frame: int) -> str:
    return f"frame {frame} ({timecode(found.seconds_at(frame))})"
