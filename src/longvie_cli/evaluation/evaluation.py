"""A video measured: everything that is found out about it, and why the rest is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.depth import DepthEstimator
from longvie_cli.errors import ControlError, LongVieError, MediaError, MissingResourceError
from longvie_cli.evaluation import consistency, controllability, quality, reference, seams
from longvie_cli.evaluation.clips import VideoClip
from longvie_cli.evaluation.drift import Drift, measure_colour_drift, measure_drift
from longvie_cli.evaluation.motion import Motion, measure_motion
from longvie_cli.evaluation.scan import VideoScan, scan_video
from longvie_cli.evaluation.weights import PERCEPTUAL, skipped_dimensions, skipped_perceptual
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.vmaf import VMAF_MODEL, has_vmaf, vmaf_score
from longvie_cli.progress import Progress

# Starts below these are taken for nothing, to which no change is relative: levels of 255, and of
# blockiness none.
_LEAST = {
    "luma": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "sharpness": 0.1,
    "noise": 0.05,
    "blockiness": 0.0,
}
# Pixels that VMAF compares in all, some 40 seconds of a core.
_VMAF_PIXELS = 400_000_000


@dataclass(frozen=True)
class Inputs:
    """What is measured.

    Args:
        name: The video, as it was named.
        video: The file.
        clips: Its clips.
        clips_unknown: Why they are not known, empty where they are.
        controls: Its controls, or why there are none.
        estimator: Loads what estimates depth; None without controls.
        estimator_fits: Whether the estimator knows pictures of this kind.
        reference: What it is compared with, or why with nothing.
    """

    name: str
    video: SourceVideo
    clips: tuple[VideoClip, ...]
    clips_unknown: str
    controls: controllability.PlacedControls | str
    estimator: Callable[[], DepthEstimator] | None
    estimator_fits: bool
    reference: SourceVideo | str


@dataclass
class Evaluation:
    """What was found.

    Args:
        inputs: What was measured.
        scan: Every frame, small.
        pictures: Some frames at full size.
        drifts: By quantity; `color` is the colour.
        colour_distances: Of each frame from the colour the video starts with; None of a video too
            short.
        steps: Of the clip borders; None where they are not known.
        jumps: Steps within clips that stand out.
        motion: None of a single frame.
        gaps: Consistency.
        depth: None where it was not measured, and so `tracks`, `scores`, `alignment` and `vmaf`.
        skipped: Why something was not measured, by its name.
        troubles: Inputs that were named and could not be used.
        methods: How each measure was made: method, model, frames.
    """

    inputs: Inputs
    scan: VideoScan
    pictures: quality.PictureQuality
    drifts: dict[str, Drift] = field(default_factory=dict)
    colour_distances: NDArray[np.float64] | None = None
    steps: tuple[seams.Step, ...] | None = None
    jumps: tuple[seams.Step, ...] = ()
    motion: Motion | None = None
    gaps: tuple[consistency.Gap, ...] = ()
    depth: controllability.DepthFidelity | None = None
    tracks: controllability.TrackFidelity | None = None
    alignment: reference.Alignment | None = None
    scores: reference.ReferenceScores | None = None
    vmaf: float | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    troubles: list[LongVieError] = field(default_factory=list)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return self.scan.num_frames

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.inputs.video.duration_seconds

    @property
    def borders(self) -> list[int]:
        """First frames of all clips but the first."""
        return [clip.first_frame for clip in self.inputs.clips[1:]]

    def seconds_at(self, frame: int) -> float:
        """Return when a frame is shown."""
        return float(self.scan.times[min(frame, self.num_frames - 1)])


def evaluate_video(inputs: Inputs, progress: Progress) -> Evaluation:
    """Measure everything of a video that can be; memory does not grow with its length, but for
    some numbers a frame.

    Raises:
        MediaError: The video cannot be read. What is wrong with its controls or its reference is
            noted in `troubles` instead.
    """
    borders = [clip.first_frame for clip in inputs.clips[1:]]
    video = inputs.video
    progress.start("frames", video.num_frames)
    scan = scan_video(video, borders, tell=lambda count: progress.advance("frames", count))
    progress.finish("frames")
    if scan.num_frames == 0:
        raise MediaError(f"{video.path}: not one frame of this video can be decoded.")
    step = quality.sampling_step(scan.num_frames, quality.MOST_PICTURES)
    progress.start("pictures", -(-scan.num_frames // step))
    pictures = quality.measure_quality(
        video, scan.num_frames, tell=lambda count: progress.advance("pictures", count)
    )
    progress.finish("pictures")
    found = Evaluation(inputs, scan, pictures, skipped=skipped_dimensions(os.environ))
    _drifts(found)
    _steps(found)
    _motion(found)
    _consistency(found)
    _controls(found, progress)
    _reference(found, progress)
    return found


def _drifts(found: Evaluation) -> None:
    scan, pictures = found.scan, found.pictures
    times = scan.times
    usable = pictures.frames < scan.num_frames
    picture_times = times[pictures.frames[usable]]
    series = {
        "luma": (times, scan.luma),
        "contrast": (times, scan.contrast),
        "saturation": (times, scan.saturation),
        "sharpness": (picture_times, pictures.sharpness[usable]),
        "noise": (picture_times, pictures.noise[usable]),
        "blockiness": (picture_times, pictures.blockiness[usable]),
    }
    for name, (when, values) in series.items():
        drift = measure_drift(when, values, least=_LEAST[name])
        if drift is None:
            continue
        found.drifts[name] = drift
        if drift.change is None:
            found.skipped[f"drift.{name}.change"] = (
                f"it starts at {drift.start:.2g}: no change is relative to nothing."
            )
    colour = measure_colour_drift(times, scan.lab)
    if colour is not None:
        found.drifts["color"], found.colour_distances = colour
    if not found.drifts:
        found.skipped["drift"] = (
            f"a change over time needs 8 frames; this video has {scan.num_frames}."
        )
    elif "blockiness" not in found.drifts:
        found.skipped["drift.blockiness"] = (
            "its pictures are larger than 1920x1088, or have no square pixels: made smaller, they "
            "have no grid of 8x8 blocks any more."
        )
    found.methods["drift"] = {
        "method": "mean of the first and last 15 % of the frames; Theil-Sen slope",
        "frames": scan.num_frames,
        "size": f"{scan.width}x{scan.height}",
        "pictures": len(pictures.frames),
        "every": quality.sampling_step(scan.num_frames, quality.MOST_PICTURES),
    }


def _steps(found: Evaluation) -> None:
    scan, borders, fps = found.scan, found.borders, found.inputs.video.fps
    found.jumps = seams.find_jumps(scan, borders, fps)
    if found.inputs.clips_unknown:
        found.skipped["seams"] = found.inputs.clips_unknown
    elif not borders:
        found.skipped["seams"] = "the video is one clip: it has no borders."
    else:
        found.steps = seams.measure_seams(scan, borders, fps)
    found.methods["seams"] = {
        "method": "frame difference, DIS-warped difference and step of local CIELAB means, each "
        "over its median within 2.5 s; the largest, over that of pairs inside clips",
        "size": f"{scan.width}x{scan.height}",
        "pairs": scan.num_pairs_with_motion,
    }


def _motion(found: Evaluation) -> None:
    scan = found.scan
    found.motion = measure_motion(scan.flow, scan.freezes)
    if found.motion is None:
        found.skipped["motion"] = "the video has a single frame."
    elif found.motion.last_over_first is None:
        found.skipped["motion.last_over_first"] = (
            "nothing moves in the first 15 % of the frames, or nothing was measured there."
        )
    found.methods["motion"] = {
        "method": "mean length of DIS optical flow (OpenCV, medium preset), pixels of the video a "
        "frame; freezes: no cell of the picture changes for 0.3 s",
        "size": f"{scan.width}x{scan.height}",
        "pairs": scan.num_pairs_with_motion,
    }


def _consistency(found: Evaluation) -> None:
    scan = found.scan
    times = scan.times[scan.described]
    found.gaps = consistency.measure_consistency(times, scan.descriptions)
    if not found.gaps:
        found.skipped["consistency"] = "the video is too short: no two pictures are 0.25 s apart."
    found.methods["consistency"] = {
        "method": "mean cosine of descriptions of pictures so far apart",
        "model": consistency.DESCRIPTOR,
        "frames": len(scan.described),
    }


def _controls(found: Evaluation, progress: Progress) -> None:
    placed = found.inputs.controls
    if isinstance(placed, str):
        found.skipped["control"] = placed
        return
    if controllability.frames_with_controls(placed, found.num_frames) == 0:
        found.skipped["control"] = "the controls end before the video begins."
        return
    for measure, names in (
        (_control_depth, ("control.depth_l1", "control.depth_correlation")),
        (_control_tracks, ("control.track_error",)),
    ):
        try:
            measure(found, placed, progress)
        except (MediaError, ControlError) as error:
            found.troubles.append(error)
            found.skipped |= dict.fromkeys(names, error.message)
    if found.depth is None and found.tracks is None:
        found.skipped["control"] = found.skipped["control.depth_l1"]


def _control_tracks(
    found: Evaluation, placed: controllability.PlacedControls, progress: Progress
) -> None:
    progress.start("tracks", controllability.MOST_TRACKED_FILES)
    found.tracks = controllability.measure_tracks(
        found.inputs.video,
        found.num_frames,
        placed,
        tell=lambda count: progress.advance("tracks", count),
    )
    progress.finish("tracks")
    if found.tracks is None:
        found.skipped["control.track_error"] = (
            "the grid of tracked points is not known: no normalization.json names it."
            if placed.grid is None
            else "no point of the controls could be followed in the video."
        )
    else:
        found.methods["control.track_error"] = {
            "method": "end-point error of points tracked anew, pixels of the video",
            "model": found.tracks.model,
            "frames": found.tracks.frames,
            "points": found.tracks.points,
            "every": f"the first 33 frames of {len(found.tracks.errors)} control files",
        }


def _control_depth(
    found: Evaluation, placed: controllability.PlacedControls, progress: Progress
) -> None:
    inputs = found.inputs
    assert inputs.estimator is not None, "with controls there is one"
    try:
        estimator = inputs.estimator()
    except MissingResourceError as error:
        found.skipped["control.depth_l1"] = error.message
        found.skipped["control.depth_correlation"] = error.message
        return
    progress.start("depth", controllability.MOST_DEPTH_PICTURES)
    found.depth = controllability.measure_depth(
        inputs.video,
        found.num_frames,
        placed,
        estimator,
        tell=lambda count: progress.advance("depth", count),
    )
    progress.finish("depth")
    if found.depth is None:
        reason = "no picture with a control has a depth that is a number."
        found.skipped["control.depth_l1"] = found.skipped["control.depth_correlation"] = reason
        return
    if found.depth.correlation is None:
        found.skipped["control.depth_correlation"] = (
            "the depth of the video, or of its control, is the same everywhere."
        )
    found.methods["control.depth"] = {
        "method": "depth estimated anew; one scale (not negative) and shift a video",
        "model": found.depth.model,
        "frames": len(found.depth.frames),
        "reliable": inputs.estimator_fits,
    }
    if not inputs.estimator_fits:
        progress.warning(
            f"{inputs.video.path.name}: depth is estimated by the embedded model, which knows "
            "landscapes only. If the video shows anything else, depth_l1 and depth_correlation say "
            "little (longvie models pull depth-anything-v2-small brings a better one)."
        )


def _reference(found: Evaluation, progress: Progress) -> None:
    inputs = found.inputs
    if isinstance(inputs.reference, str):
        found.skipped["reference"] = inputs.reference
        return
    found.skipped[PERCEPTUAL] = skipped_perceptual(os.environ)
    try:
        alignment, said = reference.align(inputs.video, inputs.reference)
        for line in said:
            progress.note(line)
        progress.start("reference", -(-alignment.num_frames // alignment.step))
        scores = reference.compare(
            alignment, tell=lambda count: progress.advance("reference", count)
        )
        progress.finish("reference")
        late = reference.better_offset(alignment)
    except MediaError as error:
        found.troubles.append(error)
        found.skipped["reference"] = error.message
        return
    if late is not None:
        frames, ratio = late
        progress.warning(
            f"{inputs.video.path.name}: it fits its reference better {abs(frames)} "
            f"frame{'s'[: abs(frames) > 1]} {'later' if frames < 0 else 'earlier'} "
            f"({abs(frames) / alignment.rate:.3f} s; {ratio:.0%} of the squared error): the video "
            f"is {'late' if frames > 0 else 'early'}. It is compared as it is."
        )
    found.alignment, found.scores = alignment, scores
    if not np.isfinite(scores.ssim).any():
        found.skipped["reference.ssim"] = "pictures of less than 11 pixels a side have none."
    _vmaf(found, alignment, progress)
    found.methods["reference"] = {
        "method": "PSNR of the mean squared error over R, G and B; SSIM by kornia, Gaussian window "
        "11, deviation 1.5, mean of R, G and B",
        "size": f"{alignment.width}x{alignment.height}",
        "frames": len(scores.frames),
        "every": alignment.step,
        "fit": alignment.fit,
        "late_frames": 0 if late is None else late[0],
    }


def _vmaf(found: Evaluation, alignment: reference.Alignment, progress: Progress) -> None:
    name = "reference.vmaf"
    if not has_vmaf():
        found.skipped[name] = "the ffmpeg that is used was built without libvmaf."
        return
    if alignment.fit == "crop":
        found.skipped[name] = "the reference has another aspect."
        return
    if found.scores is not None and found.scores.detail < _LEAST["contrast"]:
        found.skipped[name] = "the reference is of one colour: to VMAF, white is like black."
        return
    pixels = alignment.num_frames * found.inputs.video.height * found.inputs.video.width
    every = max(1, -(-pixels // _VMAF_PIXELS))
    progress.message(f"{found.inputs.video.path.name}: VMAF of {alignment.num_frames} frames")
    try:
        found.vmaf = vmaf_score(
            alignment.video,
            alignment.reference,
            fps=alignment.fps,
            num_frames=alignment.num_frames,
            every=every,
        )
    except MediaError as error:
        found.skipped[name] = error.message
        return
    found.methods[name] = {
        "method": "libvmaf of ffmpeg, both videos numbered anew at one rate",
        "model": VMAF_MODEL,
        "frames": -(-alignment.num_frames // every),
        "every": every,
    }
