"""Controls along a camera path through a picture: depth and tracks of a `PictureScene`."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.control_folder import ControlLayout
from longvie_cli.controls.depth import DepthEstimator
from longvie_cli.controls.normalization import DepthRange
from longvie_cli.controls.picture_scene import PictureScene
from longvie_cli.controls.rendered import RenderedControls
from longvie_cli.controls.tracks import PointTracks
from longvie_cli.settings.camera_path import CameraPath

# Whether a point is hidden is looked up in pictures no wider than this.
_VISIBILITY_WIDTH = 416
# A point counts as seen if what is in its place is not nearer by more than this.
_SEEN_RATIO = 1.05
_SEEN_MARGIN = 0.01
# Between pixels that are this alike disparity is interpolated, as it is linear on a plane.
_SMOOTH_RATIO = 1.1
# Greys of two pictures that agree less than this say nothing about one another.
_LEAST_CORRELATION = 0.5
_NEAREST_UNITS = 1e-3
_UNSEEN_GREY = 96


class PictureFlight:
    """A path through a picture, frame by frame; every frame can be had on its own.

    Args:
        picture: [H, W, 3] RGB at the size of the controls: frame 0.
        estimator: Gives its depth.
        path: From the picture's place on.
        fps: Frame `index` is at index / fps seconds of the path.
        fov_degrees: Horizontal field of view of the picture.
        seed: Of the landscape beyond the picture.

    Raises:
        ControlError: The picture shows no depth.
    """

    def __init__(
        self,
        picture: NDArray[np.uint8],
        estimator: DepthEstimator,
        path: CameraPath,
        *,
        fps: int,
        fov_degrees: float,
        seed: int,
    ) -> None:
        self.picture = picture
        self._fps = fps
        self._height, self._width = picture.shape[:2]
        # A copy: estimators want an array they may write to.
        disparity = estimator.estimate(np.stack([picture]))[0]
        scene = PictureScene(disparity, fov_degrees=fov_degrees, seed=seed)
        self._scene = scene
        self._path = scene.follow(path)
        self._focal = self._width / 2 / np.tan(np.radians(fov_degrees) / 2)
        self.settings: dict[str, Any] = {
            "camera": str(path),
            "picture_sha256": hashlib.sha256(picture.tobytes()).hexdigest(),
            "depth": estimator.name,
            "fov": fov_degrees,
            "scene_seed": seed,
        }

    def disparity(self, index: int) -> NDArray[np.float32]:
        """Return the disparity of a frame, [H, W]; 1 is the picture's median depth, 0 is sky."""
        return self._scene.disparity(self._path.pose(index / self._fps), self._height, self._width)

    @cached_property
    def _first_disparity(self) -> NDArray[np.float32]:
        return self.disparity(0)

    def tracks(self, start: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        """Return where points [N, 2] of frame `start` are in `num_frames` frames from it on.

        Their places are exact for the depth of frame `start`; they are hidden where the depth of
        the later frame is nearer, outside the picture, and behind the camera.
        """
        first = self._path.pose(start / self._fps)
        disparity = _sample(self.disparity(start), points)
        far_away = disparity == 0
        middle = np.array([(self._width - 1) / 2, (self._height - 1) / 2])
        rays = np.concatenate(((points - middle) / self._focal, np.ones((len(points), 1))), axis=1)
        reach = self._scene.texels / np.where(far_away, 1, disparity)
        offsets = (rays * reach[:, None]) @ first.rotation.T
        places = np.empty((num_frames, len(points), 2), dtype=np.float32)
        visible = np.ones((num_frames, len(points)), dtype=np.bool_)
        places[0] = points
        for row in range(1, num_frames):
            pose = self._path.pose((start + row) / self._fps)
            moved = pose.position - first.position
            seen = np.where(far_away[:, None], offsets, offsets - moved) @ pose.rotation
            depth = seen[:, 2]
            scale = self._focal / np.maximum(depth, _NEAREST_UNITS * self._scene.texels)
            place = seen[:, :2] * scale[:, None] + middle
            inside = (depth > 0) & (place >= -0.5).all(axis=1)
            inside &= (place < (self._width - 0.5, self._height - 0.5)).all(axis=1)
            expected = np.where(far_away, 0, self._scene.texels / np.where(inside, depth, 1))
            visible[row] = inside & self._is_seen(pose_index=start + row, place=place, of=expected)
            places[row] = place
        return PointTracks(places, visible)

    def seen(self, index: int) -> NDArray[np.uint8]:
        """Return what the picture shows of a frame, [H, W, 3]; grey where it shows nothing.

        For people to look at: the scene is known, its colours beyond the picture are not.
        """
        here, start = (self._path.pose(number / self._fps) for number in (index, 0))
        disparity = self.disparity(index).reshape(-1)
        rows, columns = np.indices((self._height, self._width), dtype=np.float64)
        points = np.stack((columns.reshape(-1), rows.reshape(-1)), axis=1)
        middle = np.array([(self._width - 1) / 2, (self._height - 1) / 2])
        rays = np.concatenate(((points - middle) / self._focal, np.ones((len(points), 1))), axis=1)
        far_away = disparity == 0
        reach = self._scene.texels / np.where(far_away, 1, disparity)
        offsets = (rays * reach[:, None]) @ here.rotation.T
        moved = np.where(far_away[:, None], 0, here.position - start.position)
        place = (offsets + moved) @ start.rotation
        depth = np.maximum(place[:, 2], _NEAREST_UNITS * self._scene.texels)
        at = place[:, :2] * (self._focal / depth)[:, None] + middle
        inside = (place[:, 2] > 0) & (at >= -0.5).all(axis=1)
        inside &= (at < (self._width - 0.5, self._height - 0.5)).all(axis=1)
        column, row = np.rint(np.where(inside[:, None], at, 0)).astype(int).T
        expected = np.where(far_away, 0, self._scene.texels / depth)
        hides = self._first_disparity[row, column] > expected * _SEEN_RATIO + _SEEN_MARGIN
        frame = np.full((len(points), 3), _UNSEEN_GREY, dtype=np.uint8)
        shown = inside & ~hides
        frame[shown] = self.picture[row[shown], column[shown]]
        return frame.reshape(self._height, self._width, 3)

    def _is_seen(
        self, *, pose_index: int, place: NDArray[np.float64], of: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        scale = min(1.0, _VISIBILITY_WIDTH / self._width)
        height, width = round(self._height * scale), round(self._width * scale)
        pose = self._path.pose(pose_index / self._fps)
        shown = self._scene.disparity(pose, height, width)
        x = (place[:, 0] + 0.5) * (width / self._width) - 0.5
        y = (place[:, 1] + 0.5) * (height / self._height) - 0.5
        farthest = np.full(len(place), np.inf)
        for row in (np.floor(y), np.floor(y) + 1):
            for column in (np.floor(x), np.floor(x) + 1):
                around = shown[
                    row.clip(0, height - 1).astype(int), column.clip(0, width - 1).astype(int)
                ]
                farthest = np.minimum(farthest, around)
        seen: NDArray[np.bool_] = farthest <= of * _SEEN_RATIO + _SEEN_MARGIN
        return seen


def range_to_continue(
    disparity: NDArray[np.floating], greys: NDArray[np.uint8]
) -> DepthRange | None:
    """Return the range that gives a picture the greys it had before; None if they do not agree.

    Depth of two kinds, estimated in a video and rendered in a scene, has two scales: this is the
    straight line between them.

    Args:
        disparity: [H, W], of the frame that controls go on from.
        greys: [H, W], its depth picture of before, 0 near.
    """
    near = 1 - greys.astype(np.float64).reshape(-1) / 255
    here = disparity.astype(np.float64).reshape(-1)
    # What was cut off at either end has lost its depth.
    kept = (near > 0.01) & (near < 0.99)
    if kept.sum() < 16 or np.ptp(here[kept]) == 0 or np.ptp(near[kept]) == 0:
        return None
    if np.corrcoef(here[kept], near[kept])[0, 1] < _LEAST_CORRELATION:
        return None
    slope, offset = np.polyfit(here[kept], near[kept], 1)
    return DepthRange(float(-offset / slope), float((1 - offset) / slope))


class PictureControls(RenderedControls):
    """Controls along a path through a picture, at the size and fps of `layout`."""

    def __init__(
        self,
        flight: PictureFlight,
        layout: ControlLayout,
        num_frames: int,
        *,
        start_frame: int = 0,
        text: str = "",
    ) -> None:
        super().__init__(layout, num_frames, start_frame=start_frame, text=text)
        self._flight = flight

    def _made_from(self) -> dict[str, Any]:
        return self._flight.settings

    def _picture_at(self, frame: int) -> NDArray[np.uint8]:
        # Of the one frame that is asked for: no scene but the first begins on a path.
        return self._flight.picture

    def _disparity_at(self, frame: int) -> NDArray[np.float32]:
        return self._flight.disparity(frame)

    def _tracks_at(self, start: int, num_frames: int, points: NDArray[np.float32]) -> PointTracks:
        return self._flight.tracks(start, num_frames, points)


def _sample(picture: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return values at points: bilinear where the pixels around are alike, else the nearest's."""
    height, width = picture.shape
    x = points[:, 0].astype(np.float64).clip(0, width - 1)
    y = points[:, 1].astype(np.float64).clip(0, height - 1)
    left = np.minimum(np.floor(x).astype(int), width - 2)
    top = np.minimum(np.floor(y).astype(int), height - 2)
    along, down = x - left, y - top
    around = np.stack(
        [picture[top + row, left + column] for row in (0, 1) for column in (0, 1)]
    ).astype(np.float64)
    weights = np.stack(
        ((1 - along) * (1 - down), along * (1 - down), (1 - along) * down, along * down)
    )
    nearest = picture[np.rint(y).astype(int), np.rint(x).astype(int)]
    smooth = around.max(axis=0) <= _SMOOTH_RATIO * around.min(axis=0)
    sampled: NDArray[np.float64] = np.where(smooth, (weights * around).sum(axis=0), nearest)
    return sampled
