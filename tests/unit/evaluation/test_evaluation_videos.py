"""Whole evaluations of made videos, and agreement with other implementations on the same files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longvie_cli.evaluation.clips import VideoClip, clips_of_plan, whole_video
from longvie_cli.evaluation.consistency import describe_picture
from longvie_cli.evaluation.evaluation import Evaluation, Inputs, evaluate_video
from longvie_cli.evaluation.reference import align, better_offset, compare, structural_similarity
from longvie_cli.evaluation.results import as_json
from longvie_cli.evaluation.scan import scan_video
from longvie_cli.media.ffmpeg import ffmpeg_executable
from longvie_cli.media.probe import probe_video
from longvie_cli.media.reader import read_every, read_frames
from longvie_cli.media.vmaf import has_vmaf, vmaf_score
from longvie_cli.progress import SilentProgress
from longvie_cli.timeline import ClipGeometry, plan_clips
from made_frames import changed, sliding, turning, write


def _clips(num_frames: int, borders: Sequence[int]) -> tuple[VideoClip, ...]:
    starts = [0, *borders]
    ends = [*borders, num_frames]
    return tuple(
        VideoClip(index, start, end - start)
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    )


def _evaluate(path: Path, borders: Sequence[int] = (), reference: Any = "none.") -> Evaluation:
    video = probe_video(path)
    return evaluate_video(
        Inputs(
            name=path.name,
            video=video,
            clips=_clips(video.num_frames, borders) if borders else whole_video(video.num_frames),
            clips_unknown="" if borders else "not known.",
            controls="none.",
            estimator=None,
            estimator_fits=True,
            reference=reference,
        ),
        SilentProgress(),
    )


def test_a_planted_seam_stands_out_among_those_that_are_none(tmp_path: Path) -> None:
    frames = sliding(120)
    frames[60:] = changed(frames[60:], (14, 4, -6))
    found = _evaluate(write(tmp_path / "a.mp4", frames), borders=(30, 60, 90))
    scores = {step.frame: step.score for step in found.steps or ()}
    assert list(scores) == [30, 60, 90]
    assert scores[60] > 4
    assert 0.6 < scores[30] < 1.6 and 0.6 < scores[90] < 1.6
    (clip,) = [clip for clip in as_json(found)["clips"] if clip["first_frame"] == 60]
    assert clip["luma"] > as_json(found)["clips"][0]["luma"] + 3


def test_seams_grow_with_what_is_planted(tmp_path: Path) -> None:
    scores = []
    for levels in (0, 3, 6, 12):
        frames = sliding(80)
        frames[40:] = changed(frames[40:], levels)
        found = _evaluate(write(tmp_path / f"{levels}.mp4", frames), borders=(40,))
        assert found.steps is not None
        scores.append(found.steps[0].score)
    assert scores == sorted(scores)
    assert scores[0] < 1.6 < 2.5 < scores[-1]


def test_a_clip_that_begins_with_the_last_frame_once_more_is_said_so(tmp_path: Path) -> None:
    frames = sliding(80)
    frames[40:] = np.concatenate([frames[39:40], frames[40:79]])
    found = _evaluate(write(tmp_path / "a.mp4", frames), borders=(20, 40, 60))
    assert [step.repeated for step in found.steps or ()] == [False, True, False]


def test_of_an_unknown_video_the_jump_is_found_and_the_seams_are_skipped(tmp_path: Path) -> None:
    frames = np.concatenate([sliding(50), sliding(50, seed=5)])
    found = as_json(_evaluate(write(tmp_path / "a.mp4", frames)))
    assert [step["frame"] for step in found["metrics"]["jumps"]] == [50]
    assert "seams" not in found["metrics"] and found["skipped"]["seams"] == "not known."
    assert found["clips"][0]["frames"] == 100
    assert any("frame 50" in finding["text"] for finding in found["findings"])


def test_a_drift_of_known_slope_is_measured(tmp_path: Path) -> None:
    # What turns around keeps its mean; 9.6 levels of red in 6 seconds are 0.2126 of it in luma.
    ramp = np.arange(96)[:, None, None, None] * np.array([0.1, 0, 0])
    found = _evaluate(write(tmp_path / "a.mp4", changed(turning(96), ramp)))
    luma, colour = found.drifts["luma"], found.drifts["color"]
    assert luma.slope_per_minute == pytest.approx(96 * 0.2126, rel=0.1)
    assert luma.end - luma.start == pytest.approx(0.2126 * 0.1 * 96 * 0.85, rel=0.1)
    assert colour.change is not None and colour.slope_per_minute > 0
    assert colour.slope_per_minute == pytest.approx(colour.change * 10 / 0.85, rel=0.15)
    level = _evaluate(write(tmp_path / "b.mp4", turning(96))).drifts
    assert abs(level["luma"].slope_per_minute) < 0.5
    assert level["color"].slope_per_minute < 1


def test_darker_greyer_and_softer_are_each_told(tmp_path: Path) -> None:
    plain = turning(64)
    fade = np.linspace(1, 0.6, 64)[:, None, None, None]
    grey = plain.mean(axis=3, keepdims=True)
    darker = (plain * fade).astype(np.uint8)
    greyer = (grey + (plain - grey) * fade).clip(0, 255).astype(np.uint8)
    changes = {}
    for name, frames in {"darker": darker, "greyer": greyer}.items():
        drifts = _evaluate(write(tmp_path / f"{name}.mp4", frames)).drifts
        changes[name] = {key: drift.change or 0.0 for key, drift in drifts.items()}
    assert changes["darker"]["luma"] == pytest.approx(-0.36, abs=0.05)
    assert changes["darker"]["contrast"] < -0.25
    assert changes["greyer"]["saturation"] == pytest.approx(-0.36, abs=0.06)
    assert abs(changes["greyer"]["luma"]) < 0.05


def test_a_frozen_tail_is_found_after_encoding(tmp_path: Path) -> None:
    frames = sliding(90)
    frames[64:] = frames[64]
    found = as_json(_evaluate(write(tmp_path / "a.mp4", frames, crf=28)))
    (freeze,) = found["metrics"]["motion"]["freezes"]
    assert (freeze["first_frame"], freeze["frames"]) == (64, 26)
    assert found["metrics"]["motion"]["last_over_first"] < 0.1


def test_motion_is_in_pixels_of_the_video(tmp_path: Path) -> None:
    for pixels in (1, 3):
        found = _evaluate(write(tmp_path / "a.mp4", sliding(30, pixels=pixels)))
        assert found.motion is not None
        assert found.motion.mean == pytest.approx(pixels, rel=0.1)
    large = sliding(16, height=180, width=384, pixels=4)
    found = _evaluate(write(tmp_path / "b.mp4", large))
    assert found.scan.width == 192 and found.motion is not None
    assert found.motion.mean == pytest.approx(4, rel=0.1)


def test_slow_drift_shows_at_growing_gaps(tmp_path: Path) -> None:
    tint = np.linspace(0, 60, 160)[:, None, None, None] * np.array([1, 0, -1])
    drifting = _evaluate(write(tmp_path / "a.mp4", changed(sliding(160, pixels=1), tint)))
    steady = _evaluate(write(tmp_path / "b.mp4", sliding(160, pixels=1)))
    gone = [gap.similarity for gap in drifting.gaps]
    kept = [gap.similarity for gap in steady.gaps]
    assert gone == sorted(gone, reverse=True)
    assert kept[0] - kept[-1] < 0.5 * (gone[0] - gone[-1])


def test_consistency_agrees_with_pairs_decoded_one_by_one(tmp_path: Path) -> None:
    import cv2

    path = write(tmp_path / "a.mp4", sliding(64))
    found = _evaluate(path)
    video = probe_video(path)
    small = list(read_frames(video, fps=None, height=64, width=96, fit="native"))
    described = [
        describe_picture(cv2.cvtColor(frame / np.float32(255), cv2.COLOR_RGB2Lab))
        for frame in small[::4]
    ]
    pairs = [
        np.dot(one.astype(float), other.astype(float))
        / np.linalg.norm(one.astype(float))
        / np.linalg.norm(other.astype(float))
        for one, other in zip(described, described[4:], strict=False)
    ]
    one_second = next(gap for gap in found.gaps if gap.seconds == 1)
    assert one_second.similarity == pytest.approx(np.mean(pairs), abs=1e-5)


# Reference.


def _ssim_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2004, equations 13 and 14-16, written out."""
    axis = np.arange(11) - 5
    line = np.exp(-(axis**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    small, large = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for channel in range(3):
        x, y = one[..., channel].astype(float), other[..., channel].astype(float)
        patches = [np.lib.stride_tricks.sliding_window_view(plane, (11, 11)) for plane in (x, y)]
        means = [np.einsum("hwij,ij->hw", patch, window) for patch in patches]
        squares = [np.einsum("hwij,ij->hw", patch**2, window) for patch in patches]
        both = np.einsum("hwij,hwij,ij->hw", *patches, window) - means[0] * means[1]
        spread = [square - mean**2 for square, mean in zip(squares, means, strict=True)]
        above = (2 * means[0] * means[1] + small) * (2 * both + large)
        below = (means[0] ** 2 + means[1] ** 2 + small) * (spread[0] + spread[1] + large)
        values.append((above / below).mean())
    return float(np.mean(values))


def test_ssim_is_that_of_the_paper() -> None:
    one = sliding(1)[0]
    noise = np.random.default_rng(0).normal(0, 12, one.shape)
    for other in (changed(one, noise), changed(one, 20), sliding(1, seed=3)[0]):
        assert structural_similarity(one, other) == pytest.approx(
            _ssim_by_hand(one, other), abs=1e-4
        )
    assert structural_similarity(one, one) == 1.0
    assert np.isnan(structural_similarity(one[:8], one[:8]))


def test_psnr_agrees_with_ffmpeg_on_the_same_files(tmp_path: Path) -> None:
    frames = sliding(24)
    one = write(tmp_path / "one.mp4", frames, crf=6)
    other = write(tmp_path / "other.mp4", frames, crf=34)
    alignment, said = align(probe_video(other), probe_video(one))
    graph = "[0:v]format=gbrp[a];[1:v]format=gbrp[b];[a][b]psnr"
    told = subprocess.run(
        [ffmpeg_executable(), "-i", other, "-i", one, "-lavfi", graph, "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    average = re.search(r"PSNR .*average:([\d.]+)", told.stderr)
    assert average is not None and said == []
    # The two differ in how colours at half size are brought to full size.
    assert compare(alignment).psnr == pytest.approx(float(average[1]), abs=0.3)


def test_an_identical_copy_is_perfect(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", sliding(24, height=112, width=192))
    found = as_json(_evaluate(path, reference=probe_video(path)))["metrics"]["reference"]
    assert (found["psnr"], found["identical"], found["ssim"]) == (100.0, True, 1.0)
    if has_vmaf():
        assert found["vmaf"] > 95


def test_a_reference_scores_worse_the_more_a_copy_differs(tmp_path: Path) -> None:
    frames = sliding(48)
    reference = probe_video(write(tmp_path / "a.mp4", frames))
    scores = []
    for late in (0, 1, 2, 4):
        moved = np.concatenate([frames[:1].repeat(late, axis=0), frames[: 48 - late]])
        copy = probe_video(write(tmp_path / f"{late}.mp4", moved))
        alignment, _ = align(copy, reference)
        found = compare(alignment)
        offset = better_offset(alignment)
        assert (offset[0] if offset else 0) == late
        scores.append((found.psnr or np.inf, float(found.ssim.mean())))
    assert scores == sorted(scores, reverse=True)


@pytest.mark.skipif(not has_vmaf(), reason="this ffmpeg has no libvmaf")
def test_vmaf_falls_with_quality_whatever_the_timestamps(tmp_path: Path) -> None:
    frames = sliding(24, height=112, width=192)
    reference = probe_video(write(tmp_path / "a.mp4", frames, crf=4))
    scores = [
        vmaf_score(
            probe_video(write(tmp_path / f"{crf}.mp4", frames, fps=fps, crf=crf)),
            reference,
            fps=None,
            num_frames=24,
            every=every,
        )
        for crf, fps, every in ((12, 16, 1), (12, 25, 2), (38, 16, 1), (48, 16, 1))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=4)
    assert scores[1] > scores[2] + 5 > scores[3] + 5


def test_other_rates_and_lengths_are_compared_where_both_are(tmp_path: Path) -> None:
    frames = sliding(72, pixels=1)
    fast = probe_video(write(tmp_path / "fast.mp4", frames, fps=24))
    slow = probe_video(write(tmp_path / "slow.mp4", frames[::2][:30], fps=12))
    alignment, said = align(slow, fast)
    assert (alignment.fps, alignment.num_frames) == (12, 30)
    assert any("24 frames a second" in line for line in said)
    assert any("the first 2.50 s (30 frames) are compared" in line for line in said)
    found = compare(alignment)
    assert len(found.frames) == 30 and (found.psnr or 99) > 33
    assert better_offset(alignment) is None


def test_a_long_reference_is_sampled_evenly(tmp_path: Path) -> None:
    video = probe_video(write(tmp_path / "a.mp4", sliding(20)))
    alignment, _ = align(video, video)
    assert replace(alignment, num_frames=5000).step == 20
    assert replace(alignment, num_frames=5000, height=1080, width=1920).step == 186


# Reading.


def test_every_nth_frame_is_the_one_that_is_meant(tmp_path: Path) -> None:
    video = probe_video(write(tmp_path / "a.mp4", sliding(23)))
    every = list(read_frames(video, fps=None, height=64, width=96, fit="native"))
    chosen = list(read_every(video, step=5, height=64, width=96))
    assert len(chosen) == 5
    for index, frame in enumerate(chosen):
        assert np.array_equal(frame, every[5 * index])
    at_rate = list(read_every(video, step=3, fps=8, height=64, width=96, num_frames=3))
    assert [
        min(range(23), key=lambda k: int(np.abs(every[k].astype(int) - frame).sum()))
        for frame in at_rate
    ] == [0, 6, 12]


def test_times_of_a_variable_rate_are_those_of_its_frames(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", sliding(32), fps=16)
    path = tmp_path / "vfr.mkv"
    # Every frame of the second half lasts twice as long.
    slower = "setpts='if(lt(N,16),N,16+2*(N-16))/16/TB'"
    command = [ffmpeg_executable(), "-v", "error", "-i", str(source), "-vf", slower]
    subprocess.run([*command, "-fps_mode", "vfr", str(path)], check=True)
    scan = scan_video(probe_video(path))
    assert scan.num_frames == 32
    assert scan.times[[1, 16, 17, 31]] == pytest.approx(
        [1 / 16, 1, 1 + 2 / 16, 1 + 30 / 16], abs=2e-3
    )


def test_clips_follow_from_a_plan() -> None:
    plan = plan_clips(ClipGeometry(33, 16), 90, cuts=(50,))
    clips = clips_of_plan(plan, num_frames=90, prompts=["a"] * len(plan), seeds=[1] * len(plan))
    assert [clip.first_frame for clip in clips] == [0, 33, 50, 83]
    assert [clip.starts_scene for clip in clips] == [False, False, True, False]
    assert sum(clip.frames for clip in clips) == 90
    shorter = clips_of_plan(plan, num_frames=40)
    assert [(clip.first_frame, clip.frames) for clip in shorter] == [(0, 33), (33, 7)]
    longer = clips_of_plan(plan, num_frames=100, earlier_frames=5)
    assert [clip.first_frame for clip in longer] == [0, 5, 38, 55, 88]
    assert (longer[0].index, longer[-1].end) == (-1, 100)
