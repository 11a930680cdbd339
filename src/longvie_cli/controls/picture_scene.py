"""A scene made of one picture's depth, which can be seen from anywhere and has no end.

Three surfaces, of which every pixel takes the nearest:

- the picture's own depth as a mesh, torn where near things stand before far ones;
- behind it, and mirrored all around, its background: the same depth with near things taken out, so
  that what comes into sight behind them, or beside the picture, goes on like what was around them;
- under and beyond both, an endless procedural landscape (`worlds`) that lies below everything the
  picture shows, so that it covers nothing that was seen, and is there when that is left behind.

Where there is none of them, there is sky. Lengths of the world are texels of the landscape; the
unit of the outside is the median depth of the picture without its sky.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.mesh_raster import draw_disparity, grid_triangles
from longvie_cli.errors import ControlError

if TYPE_CHECKING:
    from longvie_cli.settings.camera_path import CameraPath
    from longvie_cli.worlds.camera import Pose
    from longvie_cli.worlds.followed_path import FollowedPath
    from longvie_cli.worlds.raycast import Raycaster
    from longvie_cli.worlds.terrain import Terrain

DEFAULT_FOV_DEGREES = 55.0

# Farther than this share of the near things' disparity is sky: 50 times as far away.
_SKY_SHARE = 0.02
_NEAR_PERCENT = 98.0
# A jump in depth tears the mesh: this much of the median disparity, and this many times as near.
_TEAR_STEP = 0.05
_TEAR_RATIO = 1.25
# Estimators blur a jump over about this share of the width.
_BLUR_SHARE = 1 / 64
# Background reaches this share of the width behind near things.
_BEHIND_SHARE = 0.08
# This share of the width at both sides stays as it is, or the mirrored picture would not fit on.
_KEPT_SIDE_SHARE = 0.15
# Behind the picture's own mesh by this, so that the two do not show through each other.
_SET_BACK = 1.01
_LARGEST_MESH_COLUMNS = 416
# Between these depths (in units) the picture's mesh fades out: the camera passes through it. Away
# from where the picture was taken, what stands up fades sooner: of its sides nothing is known.
_FADE_UNITS = (0.04, 0.12)
_FADE_UNITS_AWAY = (0.3, 0.9)
_AWAY_UNITS = 1.5

# World texels in a unit, and the camera height in texels they are chosen for: procedural flights
# are made for such heights.
_TEXELS_PER_UNIT = (24.0, 96.0)
_WANTED_HEIGHT = 14.0
_CAPPED_UNITS = (0.05, 80.0)


@dataclasses.dataclass(frozen=True)
class GroundFit:
    """Where the ground is in a picture.

    Args:
        pitch: Of the camera, in radians, above 0 looking up.
        height: Of the camera above the ground, in units.
    """

    pitch: float
    height: float


class PictureScene:
    """Everything there is to see around one picture.

    Args:
        disparity: [H, W], larger is nearer, as a `DepthEstimator` gives it; nearly 0 is sky.
        fov_degrees: Horizontal field of view of the picture.
        seed: Of the landscape beyond the picture.

    Raises:
        ControlError: The disparity is not finite or shows nothing but sky.
    """

    def __init__(
        self,
        disparity: NDArray[np.floating],
        *,
        fov_degrees: float = DEFAULT_FOV_DEGREES,
        seed: int,
    ) -> None:
        from longvie_cli.worlds.camera import rotation
        from longvie_cli.worlds.raycast import Raycaster

        height, width = disparity.shape
        near = _in_units(disparity)
        self._fov = math.radians(fov_degrees)
        focal = width / 2 / math.tan(self._fov / 2)
        self.ground = fit_ground(near, focal)
        self.texels = float(np.clip(_WANTED_HEIGHT / self.ground.height, *_TEXELS_PER_UNIT))
        self._rotation = rotation(0.0, self.ground.pitch, 0.0)
        plane = _plane_disparity(self.ground, near.shape, focal)
        near = _sharpen(near, plane)
        far = _background(near, plane)
        panorama = _Panorama(height, width, focal, self._fov, self._rotation)
        own, own_triangles = _picture_mesh(near, plane, focal, self._rotation)
        around, around_triangles = panorama.mesh(far, self.ground.height)
        self._vertices = np.concatenate((own, around)).astype(np.float32) * np.float32(self.texels)
        self._triangles = np.concatenate((own_triangles, around_triangles + len(own)))
        terrain = _landscape(seed, self.ground.height, self.texels, panorama, near)
        self._raycaster: Raycaster = Raycaster(terrain)
        self._floor = _Floor(terrain, self._vertices, self.ground.height * self.texels)
        # In texels; the picture itself never fades.
        scale = min(1.0, 0.6 / float(near.max()) / _FADE_UNITS[1]) * self.texels
        self._fade = (_FADE_UNITS[0] * scale, _FADE_UNITS[1] * scale)

    def follow(self, path: CameraPath) -> FollowedPath:
        """Return a path in this world, from the picture's own place on."""
        from longvie_cli.worlds.followed_path import FollowedPath

        return FollowedPath(
            path,
            position=self._start,
            yaw=0.0,
            pitch=self.ground.pitch,
            unit=self.texels,
            floor=self._floor,
            margin=0.4 * self.ground.height * self.texels,
        )

    def disparity(self, pose: Pose, height: int, width: int) -> NDArray[np.float32]:
        """Return what a camera of the picture's field of view sees, [height, width], 0 is sky.

        In units of the picture: 1 is its median depth.
        """
        import torch

        from longvie_cli.worlds.fields import PERIOD

        focal = width / 2 / math.tan(self._fov / 2)
        rays = _rays(height, width, focal).reshape(-1, 3) @ pose.rotation.astype(np.float32).T
        things = self._things(pose, rays.reshape(height, width, 3), focal)
        origin = pose.position % np.array([PERIOD, np.inf, PERIOD])
        depth = self._raycaster.cast(
            torch.from_numpy(origin.astype(np.float32)), torch.from_numpy(rays)
        )
        land = depth.reciprocal().numpy()
        # Farther than rays are followed, and from high up, the land is level to the horizon.
        level = (-rays[:, 1] / max(float(pose.position[1]), 1.0)).clip(0, None)
        land = np.where(land > 0, land, level).reshape(height, width)
        found: NDArray[np.float32] = np.maximum(things, land) * np.float32(self.texels)
        return found

    def _things(self, pose: Pose, rays: NDArray[np.float32], focal: float) -> NDArray[np.float32]:
        """Return the disparity [H, W] of the picture's meshes, those close to the camera faded."""
        offset = (pose.position - self._start).astype(np.float32)
        vertices = (self._vertices - offset) @ pose.rotation.astype(np.float32)
        picture = np.zeros(rays.shape[:2], dtype=np.float32)
        moved = _ease(float(np.hypot(offset[0], offset[2])) / (_AWAY_UNITS * self.texels))
        # Triangles go as a whole, so long before they do they are invisible.
        closest = 0.3 * self._fade[0]
        draw_disparity(picture, vertices, self._triangles, focal=focal, near=closest)
        away = (_FADE_UNITS_AWAY[0] * self.texels, _FADE_UNITS_AWAY[1] * self.texels)
        farthest = self._fade[1] + (away[1] - self._fade[1]) * moved
        if picture.max() <= 1 / farthest:
            return picture
        behind = np.zeros_like(picture)
        draw_disparity(behind, vertices, self._triangles, focal=focal, near=farthest)
        reach = 1 / np.maximum(picture, 1e-9)
        # Ground stays, what stands up to the camera's height goes.
        height = self.ground.height * self.texels
        standing = moved * _ease(1 + 2 * rays[..., 1] * reach / height)
        near = self._fade[0] + (away[0] - self._fade[0]) * standing
        far = self._fade[1] + (away[1] - self._fade[1]) * standing
        share = ((reach - near) / (far - near)).clip(0, 1)
        faded: NDArray[np.float32] = behind + share * np.maximum(picture - behind, 0)
        return faded.astype(np.float32)

    @property
    def _start(self) -> NDArray[np.float64]:
        from longvie_cli.worlds.fields import PERIOD

        return np.array([PERIOD / 2, self.ground.height * self.texels, PERIOD / 2])


def _ease(place: float | NDArray[np.floating]) -> Any:
    """Return 0 up to 0, 1 from 1 on, smooth between."""
    place = np.clip(place, 0, 1)
    return place * place * (3 - 2 * place)


def fit_ground(near: NDArray[np.float32], focal: float) -> GroundFit:
    """Return the ground plane under a picture, from its disparity [H, W] in units, sky 0.

    On a plane a row of the picture is linear in disparity, and where that line meets 0 is the
    horizon. Fitted to the lower half, robustly; the horizon is kept below all sky, because the
    endless landscape reaches it and must not cover sky that was seen.
    """
    height, width = near.shape
    rows = ((np.arange(height) - (height - 1) / 2) / focal)[:, None].repeat(width, axis=1)
    lowest_sky = -0.9
    sky = near == 0
    if sky.any():
        # Sky inside the ground, a puddle or an error, does not count: only from above.
        from_above = np.logical_and.accumulate(sky, axis=0).sum(axis=0)
        bottoms = from_above[from_above > 0]
        if len(bottoms):
            lowest_sky = (float(np.percentile(bottoms, 98)) - (height - 1) / 2) / focal
    lower = (rows >= 0) & ~sky
    row, disparity = rows[lower].astype(np.float64), near[lower].astype(np.float64)
    horizon, camera = 0.0, 0.0
    if len(row) >= 16 and np.ptp(disparity) > 0.05:
        weight = np.ones_like(row)
        for _ in range(12):
            total = weight.sum()
            mean_d, mean_r = (weight * disparity).sum() / total, (weight * row).sum() / total
            spread = (weight * (disparity - mean_d) ** 2).sum()
            camera = float((weight * (disparity - mean_d) * (row - mean_r)).sum() / spread)
            horizon = float(mean_r - camera * mean_d)
            weight = 1 / (np.abs(row - horizon - camera * disparity) + 0.01)
    if camera <= 0.02:
        horizon = 0.0
    horizon = float(np.clip(max(horizon, lowest_sky), -0.9, 0.9))
    if camera > 0.02:
        # With the horizon settled, the height that fits the lower half best.
        ratio = (row - horizon) / np.maximum(disparity, 1e-3)
        camera = float(np.median(ratio[disparity >= np.median(disparity)]))
    if camera <= 0.02 and len(row):
        # No ground in sight, a wall perhaps: it lies under the lowest thing that is.
        camera = float(np.percentile((row - horizon) / disparity, 98))
    scale = math.cos(math.atan(horizon))
    return GroundFit(math.atan(horizon), float(np.clip(camera * scale, 0.08, 3.0)))


def _in_units(disparity: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return disparity with median 1 and sky 0."""
    if not np.isfinite(disparity).all():
        raise ControlError("The depth estimator gave numbers that are not finite.")
    nearest = float(np.percentile(disparity, _NEAR_PERCENT))
    ground = disparity > max(_SKY_SHARE * nearest, 1e-6)
    if ground.mean() < 0.02:
        raise ControlError(
            "The picture shows no depth, only sky: there is nothing to move the camera around.",
            hint="Pass an --image that shows near and far things.",
        )
    scale = float(np.median(disparity[ground]))
    units = np.where(ground, disparity / scale, 0).astype(np.float32)
    return units.clip(None, np.float32(np.percentile(units, 99.8)))


def _plane_disparity(
    ground: GroundFit, shape: tuple[int, ...], focal: float
) -> NDArray[np.float32]:
    """Return the disparity [H, W] of the fitted ground, 0 from the horizon up."""
    height, width = shape
    rows = (np.arange(height) - (height - 1) / 2) / focal - math.tan(ground.pitch)
    plane = (rows * math.cos(ground.pitch) / ground.height).clip(0, None)
    return plane[:, None].repeat(width, axis=1).astype(np.float32)


def _torn(
    near: tuple[NDArray[np.float32], NDArray[np.float32]],
    above_plane: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> NDArray[np.bool_]:
    """Return where a patch spans a jump, from its lowest and highest disparity.

    Level ground is steep in disparity, and an upright wall is steep against the ground's; a jump
    is steep both ways.
    """
    low, high = near
    torn: NDArray[np.bool_] = (high - low > _TEAR_STEP) & (high > _TEAR_RATIO * low)
    return torn & (above_plane[1] - above_plane[0] > _TEAR_STEP)


def _extremes(
    values: NDArray[np.float32], radius: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lowest and the highest value in a disc around each pixel."""
    import cv2

    size = 2 * radius + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    low, high = cv2.erode(values, kernel), cv2.dilate(values, kernel)
    return np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)


def _sharpen(near: NDArray[np.float32], plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move what lies between a near thing and the far behind it, where estimators blur, to either.

    Else it would hang in the air between the two.
    """
    radius = max(1, round(_BLUR_SHARE * near.shape[1]))
    low, high = _extremes(near, radius)
    torn = _torn((low, high), _extremes(near - plane, radius))
    snapped = np.where(near - low < high - near, low, high)
    return np.where(torn, snapped, near).astype(np.float32)


def _background(near: NDArray[np.float32], plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the disparity without near things: beside each jump, what is behind it goes on.

    Every near pixel there takes the value of the nearest pixel on the far side of a jump.
    """
    import cv2

    width = near.shape[1]
    low, high = _extremes(near, 1)
    torn = _torn((low, high), _extremes(near - plane, 1))
    side = round(_KEPT_SIDE_SHARE * width)
    torn[:, :side] = torn[:, width - side :] = False
    far_side = torn & (near - low <= high - near)
    if not far_side.any():
        return near
    distance, labels = cv2.distanceTransformWithLabels(
        (~far_side).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(int(labels.max()) + 1, dtype=np.float32)
    values[labels[far_side]] = near[far_side]
    behind = values[labels]
    covered = (distance <= max(2, _BEHIND_SHARE * width)) & (near - plane > _TEAR_STEP)
    return np.where(covered, np.minimum(near, behind), near).astype(np.float32)


def _rays(height: int, width: int, focal: float) -> NDArray[np.float32]:
    """Return the ray of every pixel, [height, width, 3] in camera axes, 1 along the axis."""
    rays = np.ones((height, width, 3), dtype=np.float32)
    rays[..., 0] = (np.arange(width) - (width - 1) / 2) / focal
    rays[..., 1] = ((np.arange(height) - (height - 1) / 2) / focal)[:, None]
    return rays


def _picture_mesh(
    near: NDArray[np.float32],
    plane: NDArray[np.float32],
    focal: float,
    rotation: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return vertices, in units from the camera in world axes, and the triangles that hold."""
    height, width = near.shape
    step = max(1.0, width / _LARGEST_MESH_COLUMNS)
    rows = np.rint(np.linspace(0, height - 1, round((height - 1) / step) + 1)).astype(int)
    columns = np.rint(np.linspace(0, width - 1, round((width - 1) / step) + 1)).astype(int)
    disparity = near[np.ix_(rows, columns)]
    rays = _rays(height, width, focal)[np.ix_(rows, columns)].astype(np.float64)
    # A hair over the edge, or rounding leaves the picture's outermost pixels open.
    rays[:, [0, -1], 0] *= 1 + 0.02 / width
    rays[[0, -1], :, 1] *= 1 + 0.02 / height
    # Sky has no triangles; where its vertices are is of no account.
    points = rays / np.where(disparity > 0, disparity, 1)[..., None]
    triangles = grid_triangles(len(rows), len(columns))
    corners = disparity.reshape(-1)[triangles]
    above = corners - plane[np.ix_(rows, columns)].reshape(-1)[triangles]
    torn = _torn((corners.min(axis=1), corners.max(axis=1)), (above.min(axis=1), above.max(axis=1)))
    whole = corners.min(axis=1) > 0
    return points.reshape(-1, 3) @ rotation.T, triangles[whole & ~torn]


class _Panorama:
    """The picture as seen by heading and rise: its own view ahead, mirrored all around.

    Args:
        height: Of the picture.
        width: Of the picture.
        focal: In pixels.
        fov: In radians.
        rotation: Of the camera in the world.
    """

    def __init__(
        self, height: int, width: int, focal: float, fov: float, rotation: NDArray[np.float64]
    ) -> None:
        self._size, self._focal, self._rotation = (height, width), focal, rotation
        step = max(2.0, 2 * width / _LARGEST_MESH_COLUMNS)
        rise_of = _rays(height, width, focal) @ rotation.T
        rises = rise_of[..., 1] / np.hypot(rise_of[..., 0], rise_of[..., 2])
        low, high = max(-3.0, float(rises.min())), min(3.0, float(rises.max()))
        # From the top down, as rows of a picture: the mesh then faces the camera.
        self.rises = np.linspace(high, low, int(np.clip((high - low) * focal / step, 8, 400)))
        self._half = math.atan(math.tan(fov / 2) / max(0.3, -rotation[1, 1]))
        # An odd number of mirrored copies closes the circle without a seam.
        rest = 2 * math.pi - 2 * self._half
        self._copies = max(1, 2 * round((rest / (2 * self._half) - 1) / 2) + 1)
        self._copy = rest / self._copies
        self.num_headings = 2 * round(math.pi * width / (2 * self._half * step))
        self.headings = np.linspace(-math.pi, math.pi, self.num_headings, endpoint=False)

    def mesh(
        self, far: NDArray[np.float32], camera_height: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return vertices and triangles, as `_picture_mesh`, all around.

        What stands behind something nearer was seen only above it: it is let down to the ground.
        """
        reach = self.reach(far, self.headings) * _SET_BACK
        known = np.isfinite(reach) & (reach > 0)
        distance = np.where(known, reach, 1)
        heading = self.headings[None, :]
        points = np.stack(
            (
                distance * np.sin(heading),
                distance * self.rises[:, None],
                -distance * np.cos(heading),
            ),
            axis=-1,
        )
        rows, columns = distance.shape
        # One column more, which is the first again.
        numbers = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
        closed = np.concatenate((numbers, numbers[:, :1]), axis=1).reshape(-1)
        triangles = closed[grid_triangles(rows, columns + 1)]
        whole = known.reshape(-1)[triangles].all(axis=1)
        # Below the horizon a sheet between near and far is ground; above it, it would hang in the
        # air.
        corners = distance.reshape(-1)[triangles]
        rise = np.broadcast_to(self.rises[:, None], distance.shape).reshape(-1)[triangles]
        hanging = (corners.max(axis=1) > 1.5 * corners.min(axis=1)) & (rise.max(axis=1) > 0)
        hidden = known[:-1] & known[1:] & (distance[:-1] > 1.5 * distance[1:])
        hidden &= self.rises[:-1, None] > -camera_height / distance[:-1]
        upper, left = np.nonzero(hidden & np.roll(hidden, -1, axis=1))
        feet = points.copy()
        feet[..., 1] = -camera_height
        first, second = numbers[upper, left], numbers[upper, (left + 1) % columns]
        below = np.int32(rows * columns)
        skirts = np.concatenate(
            (
                np.stack((first, first + below, second), axis=1),
                np.stack((second, first + below, second + below), axis=1),
            )
        )
        used, triangles = np.unique(
            np.concatenate((triangles[whole & ~hanging], skirts)), return_inverse=True
        )
        both = np.concatenate((points.reshape(-1, 3), feet.reshape(-1, 3)))
        return both[used], triangles.reshape(-1, 3).astype(np.int32)

    def reach(
        self, disparity: NDArray[np.float32], headings: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return level distances [rises, headings]; inf is sky, 0 was not in the picture."""
        mirrored = self._mirror(headings)[None, :]
        shape = (len(self.rises), len(headings))
        directions = np.stack(
            np.broadcast_arrays(np.sin(mirrored), self.rises[:, None], -np.cos(mirrored)), axis=-1
        )
        seen = directions.reshape(-1, 3) @ self._rotation
        ahead = seen[:, 2] > 1e-3
        along = np.where(ahead, seen[:, 2], 1)
        height, width = self._size
        column = np.rint(seen[:, 0] / along * self._focal + (width - 1) / 2)
        row = np.rint(seen[:, 1] / along * self._focal + (height - 1) / 2)
        inside = ahead & (row >= 0) & (row <= height - 1)
        # The sides of a copy may hang over by a little where the camera is tilted.
        inside &= (column >= -0.1 * width) & (column <= 1.1 * width)
        found = disparity[
            row.clip(0, height - 1).astype(int), column.clip(0, width - 1).astype(int)
        ].astype(np.float64)
        with np.errstate(divide="ignore"):
            reach = np.where(inside, 1 / (found * along), 0.0)
        return reach.reshape(shape)

    def _mirror(self, headings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the headings inside the picture that these show."""
        beyond = (np.abs(headings) - self._half) / self._copy
        turn = np.floor(beyond)
        place = beyond - turn
        # The first copy begins with the picture's edge, the next with the other edge.
        inward = np.where(turn % 2 == 0, 1 - 2 * place, 2 * place - 1) * self._half
        mirrored: NDArray[np.float64] = np.where(
            beyond < 0, headings, np.copysign(1, headings) * inward
        )
        return mirrored


def _landscape(
    seed: int, height: float, texels: float, panorama: _Panorama, near: NDArray[np.float32]
) -> Terrain:
    """Return the endless landscape, below every ray of the picture as far as that ray reaches."""
    import torch

    from longvie_cli.worlds.fields import PERIOD
    from longvie_cli.worlds.terrain import Geometry, build_terrain, random_geometry, resurfaced

    drawn = random_geometry(seed)
    relief = float(np.clip(1.5 * height * texels, 12.0, 60.0))
    geometry = Geometry("hills", drawn.objects, False, drawn.feature_size, relief, 2.0)
    terrain = build_terrain(geometry, seed)
    surface = terrain.surface.numpy().astype(np.float64)
    # Lower than the camera everywhere, so that far land stays under the picture's horizon.
    surface = surface - surface.max() + 0.9 * height * texels
    place = np.arange(PERIOD) - PERIOD / 2
    x, z = place[None, :], place[:, None]
    distance = np.hypot(x, z) / texels
    heading = np.arctan2(x, -z)
    # The fitted ground around the camera, hills from half a unit on.
    ramp = ((distance - 0.5) / 1.5).clip(0, 1)
    surface = surface * ramp * ramp * (3 - 2 * ramp)
    cap = texels * (height + _lowest_free_ray(panorama, near, distance, heading) - 0.02 * distance)
    capped = np.minimum(surface, cap - 0.3).clip(-8 * relief, None)
    # The landscape repeats: towards its edge the picture's own shape gives way.
    edge = (np.maximum(np.abs(x), np.abs(z)) / (PERIOD / 2) - 0.8).clip(0, 0.2) * 5
    edge = edge * edge * (3 - 2 * edge)
    level = min(0.9 * height * texels, float(cap[0].min()), float(cap[:, 0].min()))
    edged = np.minimum(surface, max(level, -relief))
    final = capped * (1 - edge) + edged * edge
    return resurfaced(terrain, torch.from_numpy(final.astype(np.float32)))


def _lowest_free_ray(
    panorama: _Panorama,
    near: NDArray[np.float32],
    distance: NDArray[np.float64],
    heading: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return how high, from the camera, the lowest ray that is still on its way passes, in units.

    Of every place, [H, W] by distance in units and heading. Below it the picture shows nothing.
    """
    headings = np.linspace(-math.pi, math.pi, 512, endpoint=False)
    reach = panorama.reach(near, headings)
    levels = np.geomspace(*_CAPPED_UNITS, 96)
    rises = np.where(reach > 0, panorama.rises[:, None], np.inf)
    lowest = np.stack([np.where(reach > level, rises, np.inf).min(axis=0) for level in levels])
    # A place lies between two levels and two headings: the lowest of them.
    lowest = np.minimum(lowest, np.minimum(np.roll(lowest, 1, axis=1), np.roll(lowest, -1, axis=1)))
    lowest[1:] = np.minimum(lowest[1:], lowest[:-1])
    low, high = np.log(_CAPPED_UNITS)
    span = np.log(distance.clip(*_CAPPED_UNITS)) - low
    level_index = np.ceil(span / (high - low) * 95 - 1e-9).astype(int).clip(0, 95)
    column = np.rint((heading + math.pi) / (2 * math.pi) * 512).astype(int) % 512
    found = lowest[level_index, column]
    return np.where(np.isfinite(found), found * distance, 1e3)


class _Floor:
    """What a path has to stay above: the landscape, and the picture's own things.

    Args:
        terrain: The landscape.
        vertices: [N, 3] of the picture's meshes, from the camera, in texels.
        height: Of the camera, in texels.
    """

    def __init__(self, terrain: Terrain, vertices: NDArray[np.float32], height: float) -> None:
        import cv2

        from longvie_cli.worlds.fields import PERIOD
        from longvie_cli.worlds.followed_path import PeriodicFloor
        from longvie_cli.worlds.terrain import CORRIDOR_HALF_WIDTH

        self._land = PeriodicFloor(terrain.corridor.numpy())
        column, row = (np.floor(vertices[:, axis] + PERIOD / 2).astype(int) for axis in (0, 2))
        inside = (column >= 0) & (column < PERIOD) & (row >= 0) & (row < PERIOD)
        highest = np.full((PERIOD, PERIOD), -1e6, dtype=np.float32)
        np.maximum.at(highest, (row[inside], column[inside]), vertices[inside, 1] + height)
        size = 2 * CORRIDOR_HALF_WIDTH + 1
        self._things = np.asarray(cv2.dilate(highest, np.ones((size, size), np.uint8)))

    def __call__(self, x: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return heights [n] at world positions."""
        column, row = (np.floor(axis).astype(int) for axis in (x, z))
        rows, columns = self._things.shape
        # The picture is there once, the landscape again and again.
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        things = self._things[row.clip(0, rows - 1), column.clip(0, columns - 1)]
        return np.maximum(self._land(x, z), np.where(inside, things, -1e6))
