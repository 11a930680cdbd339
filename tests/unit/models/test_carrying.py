"""The first frame carried along the controls: what is moved, what is trusted, what is read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from longvie_cli.controls.rendering import render_track_clip, track_grid
from longvie_cli.models.carrying import (
    Carrying,
    ClipTracks,
    carried_trust,
    carry,
    confidence_mask,
    no_tracks,
)
from longvie_cli.models.conditioning import first_frame_mask
from longvie_cli.models.continued_motion import continued_tracks
from longvie_cli.models.depth_colours import Look
from longvie_cli.models.known_frames import GivenFrames, known_frames, recoloured
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.models.track_pictures import read_tracks
from longvie_cli.worlds import Flight
from small_models import small_pipeline, small_sketcher

HEIGHT, WIDTH, FRAMES = 96, 128, 9
GRID = {"columns": 10, "rows": 8}


def picture() -> NDArray[np.uint8]:
    """Return a smooth picture, of which a fraction of a pixel's error is a few levels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / 5 + k) * np.cos(y / (6 + k)) for k in range(3)]
    return (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def moving(step: tuple[float, float]) -> ClipTracks:
    """Return tracks that move by (x, y) pixels a frame."""
    points = track_grid(HEIGHT, WIDTH, **GRID)
    moved = points + np.arange(FRAMES, dtype=np.float32)[:, None, None] * np.float32(step)
    inside = (moved >= 0).all(-1) & (moved[..., 0] < WIDTH) & (moved[..., 1] < HEIGHT)
    return ClipTracks(moved.astype(np.float32), inside)


def slope() -> NDArray[np.uint8]:
    """Return depth that falls towards the bottom, the same in all frames."""
    rows = np.linspace(230, 20, HEIGHT).astype(np.uint8)
    return np.broadcast_to(rows[None, :, None], (FRAMES, HEIGHT, WIDTH)).copy()


def flat() -> NDArray[np.uint8]:
    return np.full((FRAMES, HEIGHT, WIDTH), 120, np.uint8)


def test_a_camera_that_stands_still_carries_the_first_frame_itself() -> None:
    carried = carry(picture(), slope(), moving((0, 0)))
    assert np.array_equal(carried.frames, np.broadcast_to(picture(), carried.frames.shape))
    assert carried.confidence.min() > 0.99


def test_a_pan_by_whole_pixels_moves_the_picture() -> None:
    carried = carry(picture(), flat(), moving((-2, 0)))
    for index in (1, 4, 8):
        moved = picture()[:, 2 * index :]
        found = carried.frames[index, :, : WIDTH - 2 * index]
        assert np.abs(found.astype(int) - moved)[:, :-4].max() <= 2
        # What has come into view was never seen.
        assert carried.confidence[index, :, WIDTH - 2 * index + 2 :].max(initial=0) < 0.05
        assert carried.confidence[index, :, 8 : WIDTH // 2].mean() > 0.5


def test_what_comes_before_the_ground_is_not_trusted() -> None:
    depth = flat() + np.uint8(80)
    depth[4:, 30:60, 40:80] = 10
    tracks = moving((0, 0))
    x, y = tracks.points[0].T
    tracks.visible[4:, (x > 38) & (x < 82) & (y > 28) & (y < 62)] = False
    carried = carry(picture(), depth, tracks)
    assert carried.confidence[6, 33:57, 43:77].max() < 0.1
    assert carried.confidence[6, :20].min() > 0.9


def test_without_points_colours_come_from_the_depth_and_nothing_is_sure() -> None:
    tracks = moving((-2, 0))
    tracks.visible[3:] = False
    sky_to_ground = np.linspace((90, 120, 200), (60, 110, 40), HEIGHT).astype(np.uint8)
    shaded = np.broadcast_to(sky_to_ground[:, None], (HEIGHT, WIDTH, 3))
    carried = carry(shaded, slope(), tracks)
    # Depth and row are the first frame's own, so its colours are found again.
    assert np.abs(carried.frames[5].astype(int) - shaded).mean() < 3
    assert not carried.confidence[3:].any()
    assert carried.confidence[0].min() == 1


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="belong together"):
        carry(picture()[1:], flat(), moving((0, 0)))


def test_tracks_are_read_back_from_their_colours() -> None:
    tracks = moving((-1.5, 0.75))
    sparse = render_track_clip(slope(), tracks.points, tracks.visible)
    read = read_tracks(sparse, **GRID)
    both = read.visible & read.visible[0] & tracks.visible
    assert both[4].sum() > 40
    drift = (read.points - read.points[0]) - (tracks.points - tracks.points[0])
    # Boxes move by whole pixels; at the picture's edge they are cut, and their middle is not known.
    edge = np.minimum(read.points, (WIDTH, HEIGHT) - read.points).min(axis=-1)
    both &= (edge > 8) & (edge[0] > 8)
    assert both[4].sum() > 25
    assert np.quantile(np.abs(drift[both]), 0.95) <= 1
    assert np.abs(drift[both]).mean() < 0.5
    assert np.abs(drift[both].mean(axis=0)).max() < 0.3
    assert not read_tracks(sparse, **GRID, tracked_frames=3).visible[3:].any()
    assert not read_tracks(np.zeros_like(sparse), **GRID).visible.any()


@pytest.mark.slow
def test_a_flight_is_carried_far_better_than_held_and_sure_where_it_is_right() -> None:
    flight = Flight(1_000_000_101, width=WIDTH, height=HEIGHT)
    frames = [flight.frame(index) for index in range(FRAMES)]
    truth = np.stack([frame.rgb for frame in frames]).astype(np.float32)
    disparity = np.stack([1 / frame.depth for frame in frames])
    far, near = np.percentile(disparity, (5, 95))
    depth = (255 * np.clip((near - disparity) / (near - far), 0, 1)).astype(np.uint8)
    points, visible = flight.tracks(0, FRAMES, track_grid(HEIGHT, WIDTH, **GRID))
    sparse = render_track_clip(depth, points, visible)
    held = float(np.square(truth[1:] - truth[:1]).mean())
    for tracks in (ClipTracks(points, visible), read_tracks(sparse, **GRID)):
        carried = carry(frames[0].rgb, depth, tracks)
        assert np.square(carried.frames[1:] - truth[1:]).mean() < held / 5
        error = np.abs(carried.frames[1:] - truth[1:]).mean(axis=-1)
        sure = carried.confidence[1:]
        low, high = np.quantile(sure, (0.25, 0.75))
        assert error[sure >= high].mean() < 0.4 * error[sure <= low].mean()


def test_mask_channels_hold_the_frames_of_a_latent_frame() -> None:
    confidence = torch.zeros(9, 16, 24)
    confidence[0] = 1
    confidence[1:] = torch.arange(8).view(8, 1, 1) / 8
    mask = confidence_mask(confidence, 4, 2, 3)
    assert mask.shape == (1, 4, 3, 2, 3)
    assert torch.equal(mask[0, :, 0], torch.ones(4, 2, 3))
    assert torch.allclose(mask[0, :, 2, 0, 0], torch.arange(4, 8) / 8)


def small(condition: str) -> LongViePipeline:
    pipeline = small_pipeline()
    pipeline.register_to_config(image_condition=condition, track_grid=[10, 8])
    return pipeline


def pixels(frames: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def controls() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    tracks = moving((-2, 0))
    dense = slope()[..., None].repeat(3, axis=-1)
    return dense, render_track_clip(slope(), tracks.points, tracks.visible)


@pytest.mark.slow
def test_a_carried_condition_shows_the_carried_frames_and_their_confidence() -> None:
    dense, sparse = controls()
    pipeline = small("carried")
    shape = (FRAMES, HEIGHT, WIDTH)
    condition = pipeline.prepare_conditioning(
        shape, prompt="a hill", image=picture(), dense=dense, sparse=sparse
    ).image_condition
    carried = carry(picture(), slope(), read_tracks(sparse, **GRID))
    rows, columns = HEIGHT // 8, WIDTH // 8
    expected = confidence_mask(torch.from_numpy(carried.confidence), 4, rows, columns)
    assert torch.equal(condition[:, :4], expected)
    with torch.no_grad():
        latents = pipeline.encode_video(pixels(carried.frames))
    assert torch.allclose(condition[:, 4:], latents, atol=1e-4)
    quick: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    frames = pipeline("a hill", picture(), dense, sparse, **quick).frames
    other = small("first_frame")("a hill", picture(), dense, sparse, **quick).frames
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert not np.array_equal(frames, other)


def test_the_look_of_a_video_reaches_what_a_clip_has_to_guess() -> None:
    dense, sparse = controls()
    given: dict[str, Any] = {"image": picture(), "dense": dense, "sparse": sparse}
    given |= {"prompt": "a hill"}
    look = Look.of(picture() // 4, dense[0])
    plain, looked = (
        small("carried").prepare_conditioning((FRAMES, HEIGHT, WIDTH), **given, carrying=carrying)
        for carrying in (None, Carrying(look=look))
    )
    mask, shown = plain.image_condition[:, :4], plain.image_condition[:, 4:]
    assert torch.equal(mask, looked.image_condition[:, :4])
    assert torch.equal(shown[:, :, 0], looked.image_condition[:, 4:, 0])
    assert not torch.allclose(shown[:, :, 1:], looked.image_condition[:, 4:, 1:], atol=0.01)


def test_a_first_frame_is_made_from_what_the_sketcher_draws() -> None:
    dense, _ = controls()
    pipeline = small("carried")
    pipeline.register_modules(sketcher=small_sketcher())
    assert pipeline.sketcher is not None
    words = pipeline.encode_prompt(["a hill"])
    made = pipeline.prepare_conditioning((1, HEIGHT, WIDTH), prompt="a hill", dense=dense[:1])
    drawn = pipeline.sketcher.sketch(slope()[0], words)
    with torch.no_grad():
        latents = pipeline.encode_video(pixels(drawn[None]))
    assert torch.allclose(made.image_condition[:, 4:], latents, atol=1e-4)
    # In part it is kept, in part the transformer has its say, which hangs on the noise.
    assert made.trust is not None
    assert 0 < float(made.trust.min()) == float(made.trust.max()) < 1
    quick: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    first, again, other = (
        pipeline("a hill", None, dense[:1], seed=seed, **quick).frames for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    # Without depth there is nothing to draw from, and with a picture no need to.
    given: dict[str, Any]
    for given in ({}, {"dense": dense[:1], "image": picture()}):
        with_it, without = (
            each.prepare_conditioning((1, HEIGHT, WIDTH), prompt="a hill", **given)
            for each in (pipeline, small("carried"))
        )
        assert torch.equal(with_it.image_condition, without.image_condition)


def test_colours_change_with_the_prompt_over_the_clip() -> None:
    dense, sparse = controls()
    sketcher, shape = small_sketcher(), (FRAMES, HEIGHT, WIDTH)
    given = GivenFrames(picture(), dense, sparse, None)
    before, now = 4 * torch.randn(2, 1, 5, 16, generator=torch.Generator().manual_seed(7))
    look = Look.of(255 - picture(), dense[0])

    def known(**told: Any) -> NDArray[np.uint8]:
        carrying = Carrying(look=look, **told)
        found = known_frames(shape, given, now, carrying, track_grid=[10, 8], sketcher=sketcher)
        assert found is not None
        return found.frames

    same = known(words_before=now, look_words=now)
    assert np.array_equal(same, known())
    change = sketcher.sketch(slope()[0], now).astype(int) - sketcher.sketch(slope()[0], before)
    assert np.abs(change).max() > 3
    turned = known(words_before=before, look_words=before)
    assert np.array_equal(turned[0], same[0])
    for index, share in ((4, 0.5), (8, 1.0)):
        expected = (same[index] + share * change).clip(0, 255)
        assert np.abs(turned[index] - expected).max() <= 1
    # In the clips after it only the look is still of the words before.
    (recoloured_look,) = recoloured(look.picture[None], look.depth[None], sketcher, before, now)
    later = known_frames(
        shape,
        given,
        now,
        Carrying(look=Look(recoloured_look, look.depth), look_words=now),
        track_grid=[10, 8],
        sketcher=sketcher,
    )
    assert later is not None
    assert np.array_equal(known(look_words=before), later.frames)


def conditioned(kind: str, **given: Any) -> torch.Tensor:
    shape = (FRAMES, HEIGHT, WIDTH)
    return small(kind).prepare_conditioning(shape, prompt="a hill", **given).image_condition


def expected_condition(frames: NDArray[np.uint8], confidence: NDArray[np.float32]) -> torch.Tensor:
    mask = confidence_mask(torch.from_numpy(confidence), 4, HEIGHT // 8, WIDTH // 8)
    with torch.no_grad():
        return torch.cat((mask, small("carried").encode_video(pixels(frames))), dim=1)


def test_without_a_picture_nothing_is_carried() -> None:
    dense, sparse = controls()
    carried, plain = (
        conditioned(kind, dense=dense, sparse=sparse) for kind in ("carried", "first_frame")
    )
    assert torch.equal(carried, plain)
    mask = first_frame_mask(plain[:, 4:], has_image=False)
    assert torch.equal(plain[:, :4], mask)


def test_without_tracks_the_depth_gives_colours() -> None:
    dense, _ = controls()
    found = conditioned("carried", image=picture(), dense=dense)
    carried = carry(picture(), slope(), no_tracks(FRAMES))
    assert carried.confidence[1:].max() == 0
    assert torch.allclose(found, expected_condition(carried.frames, carried.confidence), atol=1e-4)


def test_without_depth_the_tracks_move_the_picture() -> None:
    _, sparse = controls()
    found = conditioned("carried", image=picture(), sparse=sparse)
    carried = carry(picture(), np.full_like(flat(), 128), read_tracks(sparse, **GRID))
    assert carried.confidence[4].mean() > 0.3
    assert torch.allclose(found, expected_condition(carried.frames, carried.confidence), atol=1e-4)


def test_without_controls_a_clip_goes_on_as_its_history_moved() -> None:
    """The picture pans by two pixels a frame; the clip has to go on with it."""
    wide = np.pad(picture(), ((0, 0), (0, 40), (0, 0)), mode="wrap")
    history = np.stack([wide[:, 2 * index : 2 * index + WIDTH] for index in range(5)])
    found = conditioned("carried", image=history[-1], history=history)
    tracks = continued_tracks(history, FRAMES, **GRID)
    carried = carry(history[-1], np.full_like(flat(), 128), tracks)
    assert torch.allclose(found, expected_condition(carried.frames, carried.confidence), atol=1e-4)
    moved = wide[:, 8 + 16 : 8 + 16 + WIDTH - 20]
    assert np.abs(carried.frames[8, :, : WIDTH - 20].astype(int) - moved).mean() < 4


def test_what_is_carried_for_sure_is_kept_and_the_rest_is_made() -> None:
    """A random transformer makes noise; where the carried frames are known it has no say."""
    pipeline = small("carried")
    tracks = moving((0, 0))
    dense = slope()[..., None].repeat(3, axis=-1)
    sparse = render_track_clip(slope(), tracks.points, tracks.visible)
    quick: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    still = carry(picture(), slope(), read_tracks(sparse, **GRID))
    known = carried_trust(confidence_mask(torch.from_numpy(still.confidence), 4, 12, 16))
    assert 0.9 < known.mean() <= 1
    made = pipeline("a hill", picture(), dense, sparse, output_type="latent", **quick).frames
    with torch.no_grad():
        latents = pipeline.encode_video(pixels(still.frames))
    sure = (known == 1).expand_as(latents)
    assert torch.allclose(made[sure], latents[sure], atol=1e-4)
    # Without a picture nothing is carried, and nothing but what the transformer makes is kept.
    other = pipeline("a hill", None, dense, None, output_type="latent", **quick).frames
    assert (other - latents)[:, :, 1:].abs().mean() > 0.1


@pytest.mark.parametrize(
    ("confidence", "trust"), [(0.0, 0.6), (0.1, 0.6), (0.25, 0.8), (0.4, 1.0), (1.0, 1.0)]
)
def test_trust_grows_with_confidence(confidence: float, trust: float) -> None:
    mask = torch.full((1, 4, 3, 2, 2), confidence)
    assert torch.allclose(carried_trust(mask), torch.full((1, 1, 3, 2, 2), trust), atol=1e-6)


@pytest.mark.slow
def test_without_an_image_the_first_frame_is_made_alone_and_then_carried() -> None:
    dense, sparse = controls()
    pipeline = small("carried")
    quick: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    shape = (FRAMES, HEIGHT, WIDTH)
    noise = pipeline.prepare_noise(5, *shape)
    still = pipeline("a hill", None, dense[:1], sparse[:1], noise=noise[:, :, :1], **quick).frames
    assert still.shape == (1, HEIGHT, WIDTH, 3)
    grey = pipeline.encode_image(None)
    whole = pipeline("a hill", None, dense, sparse, seed=5, image_embeds=grey, **quick).frames
    told = pipeline("a hill", still[0], dense, sparse, seed=5, **quick).frames
    assert np.array_equal(whole, told)
    # LongVie 2's own condition is grey there.
    plain = small("first_frame")
    told = plain("a hill", still[0], dense, sparse, seed=5, **quick).frames
    assert not np.array_equal(plain("a hill", None, dense, sparse, seed=5, **quick).frames, told)


def test_a_strength_of_zero_is_a_control_less() -> None:
    dense, sparse = controls()
    quick: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0}
    pipeline = small("carried")
    off = pipeline("a hill", picture(), dense, sparse, track_strength=0, **quick).frames
    without = pipeline("a hill", picture(), dense, None, **quick).frames
    assert np.array_equal(off, without)


def test_how_a_pipeline_is_conditioned_is_saved_with_it(tmp_path: Any) -> None:
    small("carried").save_pretrained(tmp_path)
    loaded = LongViePipeline.from_pretrained(tmp_path)
    assert loaded.config.image_condition == "carried"
    assert list(loaded.config.track_grid) == [10, 8]
    with pytest.raises(ValueError, match="image_condition"):
        LongViePipeline(**loaded.components, image_condition="moved")
