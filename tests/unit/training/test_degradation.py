"""Degradations: what they do to frames, how often, and that a sample's number decides them."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from longvie_cli.media.frames import Frames
from longvie_cli.settings.training import (
    ColourDrift,
    Degradation,
    DenseScale,
    DepthDegradation,
    FrameDegradation,
)
from longvie_cli.training.degradation import Degrader, drift_colours
from longvie_cli.training.prediction import predict_velocity
from longvie_cli.training.redraw import PipelineRedraw
from small_models import small_pipeline

MANY = 2000


class Counting:
    """Marks frames instead of redrawing them, to see what was asked for."""

    def reencode(self, frames: Frames) -> Frames:
        return frames + np.uint8(1)

    def regenerate(self, frames: Frames, num_steps: int, noise: torch.Generator) -> Frames:
        return frames + np.uint8(100 + num_steps)


def picture(seed: int = 0, frames: int = 1) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (frames, 16, 24, 3), dtype=np.uint8)


def test_shares_and_ranges_are_those_of_the_paper() -> None:
    degrader = Degrader(Degradation(), seed=1)
    factors = np.array([degrader.dense_factor(number) for number in range(MANY)])
    scaled = factors[factors != 1]
    assert len(scaled) / MANY == pytest.approx(0.15, abs=0.03)
    assert scaled.min() >= 0.05
    assert scaled.max() <= 1
    small = np.zeros((1, 4, 4, 3), np.uint8)
    done = [degrader.frame(small, number, Counting()).applied for number in range(MANY)]
    regenerated = [words for words in done if words and "steps" in words[0]]
    cycled = [words for words in done if words and "cycles" in words[0]]
    assert len(regenerated) / MANY == pytest.approx(0.16, abs=0.03)
    # A drawn number of 0 cycles changes nothing.
    assert len(cycled) / MANY == pytest.approx(0.04 * 10 / 11, abs=0.02)
    assert {words[0] for words in regenerated} == {f"{n} steps" for n in (1, 5, 8, 10, 12)}
    assert not any("colour drift" in words for words in done)


def test_the_number_of_a_sample_decides_and_nothing_else() -> None:
    everything = Degradation(
        dense_scale=DenseScale(probability=1),
        depth=DepthDegradation(probability=1),
        frame=FrameDegradation(probability=1, colour_drift=ColourDrift(probability=1)),
    )
    first, second = Degrader(everything, seed=4), Degrader(everything, seed=4)
    control = picture(frames=2)
    forwards = [
        (
            first.dense_factor(number),
            first.depth(control, number).frames,
            first.frame(control[:1], number, Counting()).frames,
        )
        for number in range(8)
    ]
    torch.manual_seed(123)
    np.random.seed(5)
    for number in reversed(range(8)):
        factor, depth, frame = forwards[number]
        assert np.array_equal(second.frame(control[:1], number, Counting()).frames, frame)
        assert np.array_equal(second.depth(control, number).frames, depth)
        assert second.dense_factor(number) == factor
    assert len({factor for factor, _, _ in forwards}) == 8
    assert Degrader(everything, seed=5).dense_factor(0) != forwards[0][0]


def test_degradation_is_off_at_first_and_phased_in() -> None:
    degrader = Degrader(Degradation(off_steps=10, phase_in_steps=4), seed=1)
    assert degrader.amount(9) == 0
    assert [degrader.amount(step) for step in (10, 12, 14, 99)] == pytest.approx([0.2, 0.6, 1, 1])
    assert all(degrader.dense_factor(number, 0.0) == 1 for number in range(200))
    assert Degrader(Degradation(), seed=1).amount(0) == 1


def test_degraded_depth_is_blurrier_and_as_bright() -> None:
    degrader = Degrader(Degradation(depth=DepthDegradation(probability=1, blur_probability=0)), 2)
    checks = np.indices((32, 48)).sum(axis=0) % 2 * 255
    control = np.repeat(checks[None, ..., None], 3, axis=-1).astype(np.uint8)
    seen = set()
    for number in range(30):
        degraded = degrader.depth(control, number)
        assert degraded.frames.shape == control.shape
        seen.add(degraded.applied)
        if degraded.applied:
            assert degraded.frames.std() < control.std()
            assert abs(degraded.frames.mean() - control.mean()) < 3
    assert seen == {(), ("scales",)}


def test_a_blur_darkens_the_edges_as_the_release_does() -> None:
    degrader = Degrader(Degradation(depth=DepthDegradation(probability=1, blur_probability=1)), 2)
    control = np.full((2, 32, 48, 3), 200, np.uint8)
    blurred = [
        result.frames
        for number in range(20)
        if "blur" in (result := degrader.depth(control, number)).applied
    ]
    assert blurred
    for frames in blurred:
        assert frames[:, 16, 24].min() >= 198
        assert frames[:, 0, 0].max() < 160


def test_a_colour_drift_tints_all_frames_alike_by_a_tenth_to_a_fifth() -> None:
    frames = np.full((3, 20, 30, 3), 128, np.uint8)
    frames[:, :10] = 0
    asked = ColourDrift(probability=1)
    drifted = drift_colours(frames, asked, Random(3), torch.Generator().manual_seed(3))
    assert all(np.array_equal(frame, drifted[0]) for frame in drifted)
    # The dark half moves towards the mean of 64 +- 25 by 0.1 * 0.85 to 0.2 * 1.15 of the way.
    dark = drifted[0, :10].astype(int)
    assert dark.min() >= 0.1 * 0.85 * 38 - 1
    assert dark.max() <= 0.2 * 1.15 * 90
    assert drifted[0, 10:].mean() < 128


def test_the_model_redraws_a_picture_more_the_more_steps_it_takes() -> None:
    pipeline = small_pipeline()
    with torch.no_grad():
        embeds = pipeline.encode_prompt(["hills"])
    redraw = PipelineRedraw(pipeline, embeds)
    frames = picture(frames=1)
    once = redraw.reencode(frames)
    assert once.shape == frames.shape
    assert not np.array_equal(once, frames)

    def redrawn(steps: int, seed: int = 1) -> Frames:
        return redraw.regenerate(frames, steps, torch.Generator().manual_seed(seed))

    distances = [np.abs(redrawn(k).astype(int) - once).mean() for k in (1, 5, 12)]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]
    assert np.array_equal(redrawn(5), redrawn(5))
    assert not np.array_equal(redrawn(5), redrawn(5, seed=2))


def test_histories_of_any_length_keep_it_when_redrawn() -> None:
    pipeline = small_pipeline()
    with torch.no_grad():
        embeds = pipeline.encode_prompt(["hills"])
    redraw = PipelineRedraw(pipeline, embeds)
    for count in (1, 4, 8):
        frames = picture(frames=count)
        assert redraw.reencode(frames).shape == frames.shape
        assert redraw.regenerate(frames, 1, torch.Generator()).shape == frames.shape


def test_prediction_is_that_of_the_pipeline() -> None:
    pipeline = small_pipeline()
    control = picture(1, frames=5)
    conditioning = pipeline.prepare_conditioning(
        (5, 16, 24), prompt="hills", image=control[0], dense=control, sparse=control[::-1].copy()
    )
    noise = pipeline.prepare_noise(3, 5, 16, 24)
    stepped = pipeline.denoise(noise, conditioning, num_inference_steps=1, guidance_scale=1)
    with torch.no_grad():
        velocity = predict_velocity(pipeline, noise, 1000.0, conditioning)
    assert torch.allclose(noise - velocity, stepped, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    (
        ({"cycle": [1]}, "Extra inputs"),
        ({"cycles": [1, 2]}, "one weight for each"),
        ({"probability": 1.5}, "less than or equal to 1"),
        ({"regenerate_steps": [51], "regenerate_weights": [1]}, "50"),
    ),
)
def test_wrong_settings_are_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FrameDegradation.model_validate(settings)
