"""One flight over one world: frames, depth, tracks, caption. The room's front door."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longvie_cli.settings.camera_path import CameraPath
from longvie_cli.worlds.camera import Lens, Pose, RandomPath, random_lens
from longvie_cli.worlds.fields import PERIOD
from longvie_cli.worlds.followed_path import FollowedPath, PeriodicFloor
from longvie_cli.worlds.looks import Look, caption_for, look_for
from longvie_cli.worlds.raycast import Raycaster
from longvie_cli.worlds.render import Painter
from longvie_cli.worlds.seeding import scalar_stream
from longvie_cli.worlds.terrain import Geometry, build_terrain, random_geometry

# A track counts as seen if the surface found in its place is this close to it in depth.
_SEEN_TOLERANCE = 0.01
_SEEN_MARGIN = 0.05
# Units that a given path keeps above the highest surface around.
_MARGIN_ABOVE_GROUND = 5.0


@dataclasses.dataclass(frozen=True)
class WorldFrame:
    """One rendered frame.

    Attributes:
        rgb: [height, width, 3] uint8.
        depth: [height, width] float32, z-depth in world units along the camera axis; sky is inf.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]

    @property
    def disparity(self) -> NDArray[np.float32]:
        """[height, width] float32, 1 / depth; sky is 0."""
        return np.reciprocal(self.depth)


class Flight:
    """An endless flight, every frame of it computed on demand and equal on every call.

    Seeds from `EVALUATION_SEED_START` on are reserved for evaluation.

    Args:
        seed: Decides geometry, camera and, unless `look` is given, the look.
        width: Of the frames, in pixels.
        height: Of the frames, in pixels.
        fps: Frame `index` shows the flight at index / fps seconds.
        look: Replaces the seed's own look; geometry, depth and camera stay as they are.
        geometry: Replaces the seed's own geometry.
        num_frames: Frames the caption speaks of; the flight itself has no end.
        path: Flown from the seed's own first frame on, in place of the seed's path; its distances
            are in median depths of that frame, and it is lifted over whatever stands in its way.
    """

    def __init__(
        self,
        seed: int,
        *,
        width: int,
        height: int,
        fps: float = 16,
        look: Look | None = None,
        geometry: Geometry | None = None,
        num_frames: int = 81,
        path: CameraPath | None = None,
    ) -> None:
        self.seed = seed
        self.fps = fps
        self.num_frames = num_frames
        self.geometry = geometry or random_geometry(seed)
        self.look = look or look_for(self.geometry, seed)
        self.lens: Lens = random_lens(seed, width=width, height=height)
        # Where the horizon crosses the frame, from the top. Peaks rise above it, so tall terrain
        # gets a lower one for the same share of sky.
        horizon = scalar_stream(seed, "horizon").uniform(0.22, 0.40)
        if self.geometry.terrain in ("mountains", "canyons"):
            horizon += 0.06
        tilt = math.atan((0.5 - horizon) * height / self.lens.focal)
        terrain = build_terrain(self.geometry, seed)
        self._terrain = terrain
        self._painters: dict[Look, Painter] = {}
        self._raycaster = Raycaster(terrain)
        self._path: RandomPath | FollowedPath = RandomPath(seed, terrain.corridor.numpy(), tilt)
        columns = (torch.arange(width) - self.lens.center_x) / self.lens.focal
        rows = (torch.arange(height) - self.lens.center_y) / self.lens.focal
        self._rays = torch.stack(
            (
                columns[None, :].expand(height, width).flatten(),
                rows[:, None].expand(height, width).flatten(),
                torch.ones(height * width),
            ),
            dim=-1,
        )

        self.given_path = path
        if path is not None:
            self._path = self._following(path, self._path)

    def _following(self, path: CameraPath, own: RandomPath) -> FollowedPath:
        depth = self.depth(0)
        position, yaw, pitch, roll = own.start
        return FollowedPath(
            path,
            position=position,
            yaw=yaw,
            pitch=pitch,
            roll=roll,
            unit=float(np.median(depth[np.isfinite(depth)])),
            floor=PeriodicFloor(self._terrain.corridor.numpy()),
            margin=_MARGIN_ABOVE_GROUND,
        )

    def _painter(self, look: Look) -> Painter:
        # Only frames need colour: depth and tracks of a flight skip the baking.
        if look not in self._painters:
            self._painters[look] = Painter(self._terrain, look, self.seed)
        return self._painters[look]

    @property
    def caption(self) -> str:
        """One sentence about the first `num_frames` frames."""
        return self.caption_at(0, self.num_frames)

    def caption_at(self, start: int, num_frames: int) -> str:
        """Returns one sentence about a stretch of the flight; the wording is the seed's."""
        return caption_for(
            self.look, self.geometry, motion=self.motion_at(start, num_frames), seed=self.seed
        )

    def motion_at(self, start: int, num_frames: int) -> str:
        """Returns what the camera mostly does in a stretch, such as "turning left"."""
        seconds: dict[str, float] = {}
        for phrase, share in self._path.phrases(start / self.fps, (start + num_frames) / self.fps):
            seconds[phrase] = seconds.get(phrase, 0.0) + share
        return max(seconds, key=lambda phrase: seconds[phrase])

    def pose(self, index: int) -> Pose:
        """Returns the camera of a frame."""
        return self._path.pose(index / self.fps)

    def depth(self, index: int) -> NDArray[np.float32]:
        """Returns the z-depth [height, width] of a frame, without the cost of its colours."""
        _, _, depth = self._cast(index)
        return depth.view(self.lens.height, self.lens.width).numpy()

    def frame(self, index: int) -> WorldFrame:
        """Renders a frame."""
        return next(self.frames_under(index, (self.look,)))

    def frames_under(self, index: int, looks: Sequence[Look]) -> Iterator[WorldFrame]:
        """Renders a frame under several looks; the rays, nearly all of the cost, are cast once."""
        origin, directions, depth = self._cast(index)
        hit = torch.isfinite(depth)
        ground, sky = torch.nonzero(hit)[:, 0], torch.nonzero(~hit)[:, 0]
        rays, reach = directions[ground], depth[ground]
        x, z = origin[0] + rays[:, 0] * reach, origin[2] + rays[:, 2] * reach
        shape = (self.lens.height, self.lens.width)
        for look in looks:
            painter = self._painter(look)
            rgb = torch.empty(3, depth.numel())
            if sky.numel():
                rgb[:, sky] = painter.sky(directions[sky])
            if ground.numel():
                rgb[:, ground] = painter.ground(x, z, rays, reach)
            soft = _soften_edges(rgb.view(3, *shape), depth.view(shape))
            pixels = (soft * 255.0 + 0.5).clamp_(0.0, 255.0).to(torch.uint8)
            yield WorldFrame(
                rgb=pixels.permute(1, 2, 0).contiguous().numpy(), depth=depth.view(shape).numpy()
            )

    def tracks(
        self,
        start: int,
        num_frames: int,
        points_xy: NDArray[np.floating],
        *,
        depths: Sequence[NDArray[np.float32]] | NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Follows points seen in frame `start` through the frames after it.

        Ground points stand still in the world; sky points are directions at infinity.

        Args:
            start: Frame the points are taken from; row 0 of the result.
            num_frames: Frames followed, `start` included.
            points_xy: [n, 2] pixel coordinates (x, y), pixel centres whole, within the frame.
            depths: [num_frames, height, width] rendered depth of the same frames, an array or any
                sequence of [height, width]. Visibility is then read from it instead of cast
                anew: faster, and a pixel less sharp at edges. Positions do not change.

        Returns:
            tracks [num_frames, n, 2] float32, finite everywhere; visibility [num_frames, n] bool,
            False outside the frame, behind the camera and behind nearer ground.
        """
        points = torch.from_numpy(np.asarray(points_xy, dtype=np.float32))
        origin, rotation = self._camera(start)
        directions = self._unproject(points, rotation)
        depth = self._raycaster.cast(origin, directions)
        at_sky = torch.isinf(depth)
        offsets = directions.double() * torch.where(at_sky, 1.0, depth).double()[:, None]
        first = self.pose(start).position
        tracks = np.empty((num_frames, len(points), 2), dtype=np.float32)
        visibility = np.empty((num_frames, len(points)), dtype=np.bool_)
        for row in range(num_frames):
            pose = self.pose(start + row)
            moved = torch.from_numpy(pose.position - first)
            seen_from = torch.where(at_sky[:, None], offsets, offsets - moved)
            camera = (seen_from @ torch.from_numpy(pose.rotation)).float()
            place, visible = self._project(camera)
            if row == 0:
                place, visible = points, torch.ones_like(visible)
            else:
                there = torch.nonzero(visible)[:, 0]
                expected = torch.where(at_sky[there], torch.inf, camera[there, 2])
                if depths is None:
                    found = self._cast_at(start + row, place[there])
                    visible[there] = _agrees(found, expected)
                else:
                    found = _farthest_around(torch.from_numpy(depths[row]), place[there])
                    visible[there] = (found >= expected) | _agrees(found, expected)
            tracks[row], visibility[row] = place.numpy(), visible.numpy()
        return tracks, visibility

    def _camera(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns position [3] folded into the first period, and rotation [3, 3]."""
        pose = self.pose(index)
        # Folding in float64 keeps sub-texel precision however far the flight has come.
        folded = pose.position % np.array([PERIOD, np.inf, PERIOD])
        return torch.from_numpy(folded).float(), torch.from_numpy(pose.rotation).float()

    def _cast(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        origin, rotation = self._camera(index)
        directions = self._rays @ rotation.T
        return origin, directions, self._raycaster.cast(origin, directions)

    def _cast_at(self, index: int, points: Tensor) -> Tensor:
        origin, rotation = self._camera(index)
        return self._raycaster.cast(origin, self._unproject(points, rotation))

    def _unproject(self, points: Tensor, rotation: Tensor) -> Tensor:
        lens = self.lens
        rays = torch.stack(
            (
                (points[:, 0] - lens.center_x) / lens.focal,
                (points[:, 1] - lens.center_y) / lens.focal,
                torch.ones(len(points)),
            ),
            dim=-1,
        )
        return rays @ rotation.T

    def _project(self, camera: Tensor) -> tuple[Tensor, Tensor]:
        """Projects camera-space points [n, 3]: pixels [n, 2], and whether they are in frame."""
        lens = self.lens
        ahead = camera[:, 2] > 1e-3
        scale = lens.focal / camera[:, 2].clamp(min=1e-3)
        x = camera[:, 0] * scale + lens.center_x
        y = camera[:, 1] * scale + lens.center_y
        inside = (x >= -0.5) & (x < lens.width - 0.5) & (y >= -0.5) & (y < lens.height - 0.5)
        return torch.stack((x, y), dim=-1), ahead & inside


def _agrees(found: Tensor, expected: Tensor) -> Tensor:
    margin = _SEEN_MARGIN + _SEEN_TOLERANCE * expected
    near = torch.isfinite(expected) & ((found - expected).abs() <= margin)
    return near | (found == expected)


def _farthest_around(depth: Tensor, points: Tensor) -> Tensor:
    """Returns the largest of the four depths around each point: only nearer ground hides it."""
    columns = points[:, 0].floor().long()[:, None] + torch.tensor([0, 1, 0, 1])
    rows = points[:, 1].floor().long()[:, None] + torch.tensor([0, 0, 1, 1])
    around = depth[rows.clamp(0, depth.shape[0] - 1), columns.clamp(0, depth.shape[1] - 1)]
    return around.amax(dim=1)


def _soften_edges(rgb: Tensor, depth: Tensor) -> Tensor:
    """Blends pixels [3, height, width] across jumps in depth, in place of costly supersampling."""
    disparity = torch.reciprocal(depth)
    relative = (disparity + 2e-3).log()[None, None]
    spread = torch.nn.functional.max_pool2d(relative, 3, 1, 1)
    spread = spread + torch.nn.functional.max_pool2d(-relative, 3, 1, 1)
    amount = ((spread - 0.12) * 3.0).clamp(0.0, 1.0)[0]
    padded = torch.nn.functional.pad(rgb[None], (1, 1, 1, 1), mode="replicate")
    across = padded[..., :-2] + 2.0 * padded[..., 1:-1] + padded[..., 2:]
    soft = (across[..., :-2, :] + 2.0 * across[..., 1:-1, :] + across[..., 2:, :])[0] / 16.0
    return torch.lerp(rgb, soft, amount)
