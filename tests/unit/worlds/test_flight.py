"""Flights: one seed, one world; depth and tracks exact; looks never touch geometry."""

import dataclasses
import itertools
from functools import cache

import numpy as np
import pytest
import torch

from longvie_cli.settings.camera_path import parse_camera_path
from longvie_cli.worlds import Flight, Look, random_geometry, random_look
from longvie_cli.worlds.camera import PATH_RATE
from longvie_cli.worlds.fields import PERIOD
from longvie_cli.worlds.looks import PALETTES, TIMES_OF_DAY, WEATHERS
from longvie_cli.worlds.raycast import sample_texture
from longvie_cli.worlds.render import Painter
from longvie_cli.worlds.terrain import TERRAIN_KINDS, Geometry, build_terrain

WIDTH, HEIGHT = 48, 28


@cache
def flight_over(terrain: str) -> Flight:
    seed = next(seed for seed in range(1000) if random_geometry(seed).terrain == terrain)
    return Flight(seed, width=WIDTH, height=HEIGHT)


@pytest.fixture(params=TERRAIN_KINDS)
def flight(request: pytest.FixtureRequest) -> Flight:
    return flight_over(request.param)


# The dearest look at a smooth and at a steep terrain, and at the others with the slow ones.
some_terrains = pytest.mark.parametrize(
    "flight",
    [
        pytest.param(terrain, marks=[] if terrain in ("hills", "canyons") else pytest.mark.slow)
        for terrain in TERRAIN_KINDS
    ],
    indirect=True,
)


def pixel_grid(stride: int = 3) -> np.ndarray:
    x, y = np.meshgrid(np.arange(1, WIDTH, stride), np.arange(1, HEIGHT, stride))
    return np.stack((x, y), axis=-1).reshape(-1, 2).astype(np.float32)


@pytest.mark.slow
def test_same_seed_makes_the_same_flight_in_any_order() -> None:
    first, second = (Flight(11, width=WIDTH, height=HEIGHT) for _ in range(2))
    second.frame(700)
    for index in (0, 40):
        frame, again = first.frame(index), second.frame(index)
        np.testing.assert_array_equal(frame.rgb, again.rgb)
        np.testing.assert_array_equal(frame.depth, again.depth)
    assert first.caption == second.caption


def test_other_seeds_make_other_flights() -> None:
    first, second = (Flight(seed, width=WIDTH, height=HEIGHT).depth(0) for seed in (11, 12))
    assert (first != second).mean() > 0.3


@pytest.mark.slow
def test_look_changes_colours_and_nothing_else() -> None:
    snowy = Flight(12, width=WIDTH, height=HEIGHT, look=Look("snowy", "noon", "clear"))
    alien = Flight(12, width=WIDTH, height=HEIGHT, look=Look("alien", "sunset", "foggy"))
    one, other = snowy.frame(20), alien.frame(20)
    np.testing.assert_array_equal(one.depth, other.depth)
    np.testing.assert_array_equal(snowy.pose(20).rotation, alien.pose(20).rotation)
    difference = np.abs(one.rgb.astype(int) - other.rgb.astype(int))
    assert difference.mean() > 30.0


def test_frame_has_colour_depth_and_disparity(flight: Flight) -> None:
    frame = flight.frame(5)
    assert frame.rgb.shape == (HEIGHT, WIDTH, 3) and frame.rgb.dtype == np.uint8
    assert frame.depth.shape == (HEIGHT, WIDTH) and frame.depth.dtype == np.float32
    assert (frame.depth > 0.0).all()
    np.testing.assert_array_equal(frame.depth, flight.depth(5))
    np.testing.assert_array_equal(frame.disparity == 0.0, np.isinf(frame.depth))
    assert frame.rgb.std() > 5.0


def test_depth_lies_on_the_surface(flight: Flight) -> None:
    origin, directions, depth = flight._cast(33)
    hit = torch.isfinite(depth)
    points = origin + directions[hit] * depth[hit, None]
    height = sample_texture(flight._raycaster._surface, points[:, 0], points[:, 2])[0]
    error = (points[:, 1] - height).abs()
    # float32 positions a period from the origin resolve 1e-4; a ray that grazes a cliff may stop
    # a fraction of a texel short of it.
    assert error.median() < 1e-4 and error.quantile(0.98) < 0.01 and error.max() < 3.0


def test_depth_agrees_with_a_fine_march(flight: Flight) -> None:
    origin, directions, depth = flight._cast(90)
    found = torch.full_like(depth, torch.inf)
    reach = 0.5
    while reach < 300.0:
        reach += 0.05 + 0.002 * reach
        points = origin + directions * reach
        height = sample_texture(flight._raycaster._surface, points[:, 0], points[:, 2])[0]
        found[(points[:, 1] < height) & torch.isinf(found)] = reach
    near = (found < 290.0) | (depth < 290.0)
    wrong = (depth - found).abs() > 0.1 + 0.006 * torch.minimum(depth, found)
    # Either march may slip past a crest it grazes: a few silhouette pixels.
    assert float(wrong[near].float().mean()) < 0.015


def test_path_does_not_depend_on_how_much_of_it_is_asked() -> None:
    short, long = (Flight(21, width=WIDTH, height=HEIGHT) for _ in range(2))
    long.pose(5000)
    for index in range(0, 600, 7):
        np.testing.assert_array_equal(short.pose(index).position, long.pose(index).position)
        np.testing.assert_array_equal(short.pose(index).rotation, long.pose(index).rotation)


def test_path_is_the_same_at_another_frame_rate() -> None:
    slow, fast = (Flight(21, width=WIDTH, height=HEIGHT, fps=fps) for fps in (16, 32))
    for index in range(0, 100, 9):
        np.testing.assert_array_equal(slow.pose(index).position, fast.pose(2 * index).position)


def test_camera_stays_above_the_surface_and_moves_smoothly(flight: Flight) -> None:
    poses = [flight.pose(index) for index in range(2400)]
    positions = np.stack([pose.position for pose in poses])
    surface = flight._terrain.surface.numpy()
    columns, rows = (np.floor(positions[:, axis]).astype(int) % PERIOD for axis in (0, 2))
    assert (positions[:, 1] - surface[rows, columns]).min() > 3.0
    jerk = np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1)
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    assert jerk.max() < 0.3 * speed.mean() + 0.1
    turns = [first.rotation.T @ second.rotation for first, second in itertools.pairwise(poses)]
    angles = np.degrees(np.arccos(np.clip([(np.trace(turn) - 1) / 2 for turn in turns], -1, 1)))
    assert angles.max() * PATH_RATE < 75.0


def test_rotations_are_right_handed(flight: Flight) -> None:
    rotation = flight.pose(50).rotation
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_visible_tracks_have_the_depth_of_the_later_frame(flight: Flight) -> None:
    points = pixel_grid()
    num_frames, start = 17, 30
    tracks, visibility = flight.tracks(start, num_frames, points)
    assert tracks.shape == (num_frames, len(points), 2) and tracks.dtype == np.float32
    assert visibility.shape == (num_frames, len(points)) and visibility.dtype == np.bool_
    assert np.isfinite(tracks).all()
    np.testing.assert_array_equal(tracks[0], points)
    assert visibility[0].all() and visibility[-1].mean() > 0.2

    first, last = flight.pose(start), flight.pose(start + num_frames - 1)
    seen = visibility[-1]
    depth = flight._cast_at(start, torch.from_numpy(points)).numpy()[seen]
    later = flight._cast_at(start + num_frames - 1, torch.from_numpy(tracks[-1][seen])).numpy()
    ground = np.isfinite(depth)
    np.testing.assert_array_equal(np.isfinite(later), ground)
    lens = flight.lens
    rays = np.concatenate(
        ((points[seen] - (lens.center_x, lens.center_y)) / lens.focal, np.ones((seen.sum(), 1))), 1
    )
    world = first.position + (rays[ground] * depth[ground, None]) @ first.rotation.T
    own = ((world - last.position) @ last.rotation)[:, 2]
    np.testing.assert_allclose(later[ground], own, rtol=0.0101, atol=0.051)


def test_tracked_ground_keeps_its_colour() -> None:
    flight = Flight(7, width=96, height=56, look=Look("meadow", "noon", "clear"))
    x, y = np.meshgrid(np.arange(2, 96, 3), np.arange(20, 56, 3))
    points = np.stack((x, y), axis=-1).reshape(-1, 2).astype(np.float32)
    tracks, visibility = flight.tracks(0, 9, points)
    first, last = flight.frame(0).rgb.astype(int), flight.frame(8).rgb.astype(int)
    seen = visibility[-1]
    column, row = np.round(tracks[-1][seen]).astype(int).clip(0, (95, 55)).T
    before = first[points[seen][:, 1].astype(int), points[seen][:, 0].astype(int)]
    followed = np.abs(last[row, column] - before).mean()
    stale = np.abs(last[points[seen][:, 1].astype(int), points[seen][:, 0].astype(int)] - before)
    assert followed < 10.0 and followed < 0.7 * stale.mean()


@some_terrains
def test_hidden_points_are_behind_something_nearer(flight: Flight) -> None:
    points = pixel_grid()
    tracks, visibility = flight.tracks(0, 33, points)
    x, y = tracks[-1].T
    inside = (x >= 0) & (x <= WIDTH - 1) & (y >= 0) & (y <= HEIGHT - 1)
    assert not visibility[-1][(x < -0.5) | (x >= WIDTH - 0.5) | (y >= HEIGHT - 0.5)].any()
    hidden = inside & ~visibility[-1]
    found = flight._cast_at(32, torch.from_numpy(tracks[-1][hidden])).numpy()
    assert np.isfinite(found).mean() > 0.9 if hidden.any() else True


@some_terrains
def test_rendered_depths_give_the_same_tracks(flight: Flight) -> None:
    points = pixel_grid()
    depths = np.stack([flight.depth(index) for index in range(4, 21)])
    tracks, visibility = flight.tracks(4, 17, points)
    again, from_depths = flight.tracks(4, 17, points, depths=depths)
    np.testing.assert_array_equal(tracks, again)
    # At 48 x 28 a twentieth of the pixels lies on a silhouette.
    assert (visibility == from_depths).mean() > 0.95


def test_far_into_a_flight_depth_is_still_exact() -> None:
    flight = flight_over("mountains")
    tracks, visibility = flight.tracks(48_000, 5, pixel_grid())
    assert visibility[-1].mean() > 0.6 and np.isfinite(tracks).all()


@pytest.mark.parametrize(
    "number",
    [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(2, len(WEATHERS), 2))],
)
def test_look_and_geometry_can_be_chosen_freely(number: int) -> None:
    geometry = dataclasses.replace(
        random_geometry(5), terrain=TERRAIN_KINDS[number % len(TERRAIN_KINDS)], water=True
    )
    times = TIMES_OF_DAY[number % len(TIMES_OF_DAY)]
    look = Look(PALETTES[number], times, WEATHERS[number])
    flight = Flight(5, width=WIDTH, height=HEIGHT, look=look, geometry=geometry)
    assert flight.frame(0).rgb.std() > 5.0
    assert flight.look == look and flight.geometry == geometry


@pytest.mark.slow
def test_palettes_differ_at_a_glance() -> None:
    geometry = Geometry("hills", "round trees", False, 220.0, 40.0, 8.0)
    terrain = build_terrain(geometry, 9)
    x, z = torch.rand(2, 2000, generator=torch.Generator().manual_seed(0)) * PERIOD
    depth = torch.full((2000,), 30.0)
    down = torch.tensor([0.0, -0.5, 1.0]).expand(2000, 3)
    means = []
    for palette in PALETTES:
        painter = Painter(terrain, Look(palette, "noon", "clear"), 9)
        means.append(painter.ground(x, z, down, depth).mean(dim=1).numpy() * 255.0)
    gaps = [
        np.linalg.norm(first - second)
        for number, first in enumerate(means)
        for second in means[number + 1 :]
    ]
    assert min(gaps) > 18.0


def test_random_look_is_not_told_by_the_terrain() -> None:
    counts = {terrain: set() for terrain in TERRAIN_KINDS}
    for seed in range(400):
        counts[random_geometry(seed).terrain].add(random_look(seed).palette)
    assert all(palettes == set(PALETTES) for palettes in counts.values())


@pytest.mark.slow
def test_frames_under_several_looks_equal_flights_of_those_looks() -> None:
    looks = (Look("snowy", "dawn", "clear"), Look("desert", "night", "foggy"))
    together = list(Flight(5, width=64, height=48).frames_under(9, looks))
    for look, frame in zip(looks, together, strict=True):
        alone = Flight(5, width=64, height=48, look=look).frame(9)
        assert np.array_equal(frame.rgb, alone.rgb)
        assert np.array_equal(frame.depth, alone.depth)


@pytest.mark.slow
def test_a_given_path_starts_at_the_seeds_first_frame_and_stays_above_ground() -> None:
    for text in ("forward, orbit", "down 3, forward 1 + turn 90 in 2s, forward"):
        path = parse_camera_path(text)
        own = Flight(6, width=WIDTH, height=HEIGHT)
        given = Flight(6, width=WIDTH, height=HEIGHT, path=path)
        np.testing.assert_array_equal(given.depth(0), own.depth(0))
        poses = [given.pose(index) for index in range(600)]
        positions = np.stack([pose.position for pose in poses])
        surface = given._terrain.surface.numpy()
        columns, rows = (np.floor(positions[:, axis]).astype(int) % PERIOD for axis in (0, 2))
        # Of the first seconds, in which a lift begins, less is promised.
        assert (positions[32:, 1] - surface[rows, columns][32:]).min() > 3.0
        jerk = np.linalg.norm(np.diff(positions, n=2, axis=0), axis=1)
        assert jerk.max() < 0.3 * np.linalg.norm(np.diff(positions, axis=0), axis=1).max()
        late = Flight(6, width=WIDTH, height=HEIGHT, path=path)
        np.testing.assert_array_equal(late.pose(500).position, positions[500])
        assert given.motion_at(0, 17) in ("flying forward", "descending")
