"""CoTracker3 (arXiv 2410.11831) as a point tracker: its own code, by way of torch.hub.

Code and weights are CC-BY-NC-4.0. Nothing of them is part of this package, and whoever makes a
`CoTrackerTracker` has had the licence accepted before. Known of them here are only the two hub
entries, `cotracker3_offline` and `cotracker3_online`, and how their predictors are called.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from longvie_cli.controls.tracks import PointTracks, inside_picture
from longvie_cli.disk.folder_hashes import file_hashes
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import ControlError, MissingResourceError

if TYPE_CHECKING:
    import torch

COTRACKER_REPO = "facebookresearch/co-tracker"
# Head of `main` since January 2025, quoted as such by many unrelated public projects; it was not
# read from GitHub itself. All 40 digits name the content, so nothing else can be delivered.
COTRACKER_REVISION = "82e02e8029753ad4ef13cf06be7f4fc5facdda4d"

_HUBCONF = "hubconf.py"
# Of names made out of hashes.
_DIGITS = 12


class CoTrackerTracker:
    """Follows points with CoTracker3: through occlusions, and a guess where they are hidden.

    The points are queried in frame 0 of the clip and followed forwards only. The model is loaded by
    the first clip. Memory: the offline model holds one clip and its features, the online one a
    window of 16 frames; neither keeps anything from clip to clip.

    Args:
        weights: `scaled_offline.pth` or `scaled_online.pth` of facebook/cotracker3.
        online: Go through the clip in windows instead of seeing all of it at once.
        checkout: Folder with the code; None for torch.hub's cache, fetched into it if missing.
        device: Where the model runs, in float32.
        offline_machine: Never fetch the code.

    Raises:
        MissingResourceError: Weights or code are not there.
    """

    def __init__(
        self,
        weights: Path,
        *,
        online: bool = False,
        checkout: Path | None = None,
        device: str = "cpu",
        offline_machine: bool = False,
    ) -> None:
        if not weights.is_file():
            raise MissingResourceError(
                f"{weights}: there are no such CoTracker3 weights.",
                hint="longvie models pull cotracker3 --accept-noncommercial",
            )
        if checkout is not None and not (checkout / _HUBCONF).is_file():
            raise MissingResourceError(
                f"{checkout}: no checkout of co-tracker, it has no {_HUBCONF}.",
                hint=f"git clone https://github.com/{COTRACKER_REPO} {checkout}",
            )
        if checkout is None and offline_machine and not hub_folder().exists():
            raise _unreachable("the machine is offline")
        self._weights = weights
        self._online = online
        self._checkout = checkout
        self._device = device
        self._predictor: Any = None
        content = (
            f"{COTRACKER_REVISION[:_DIGITS]}-{_weights_hash(weights)[:_DIGITS]}"
            if checkout is None
            else checkout_digest(checkout, weights)
        )
        self.name = f"{self._entry}-{content}"

    @property
    def _entry(self) -> str:
        return "cotracker3_online" if self._online else "cotracker3_offline"

    def track(self, frames: NDArray[np.uint8], points: NDArray[np.float32]) -> PointTracks:
        """Return the tracks of `points`, [N, 2] as (x, y) in frame 0, through [T, H, W, 3] RGB.

        Raises:
            MissingResourceError: The code cannot be fetched or loaded, or the weights do not fit.
            ControlError: The model's answer has another shape, or is not finite.
        """
        import torch

        num_frames, height, width = frames.shape[:3]
        places = np.repeat(points[None].astype(np.float32), num_frames, axis=0)
        visible = np.ones(places.shape[:2], dtype=np.bool_)
        if num_frames == 1 or len(points) == 0:
            return PointTracks(places, visible)
        self._predictor = self._predictor or self._load()
        queries = torch.zeros(1, len(points), 3, device=self._device)
        queries[0, :, 1:] = torch.from_numpy(points).to(self._device)
        with _noise_on_stderr(), _fixed_random_numbers(self._device), torch.inference_mode():
            follow = self._follow_online if self._online else self._follow_offline
            answer, seen = follow(frames, queries)
        if (
            answer.shape[0] != 1
            or answer.shape[1] < num_frames
            or answer.shape[2:] != (*points.shape,)
        ):
            raise ControlError(
                f"{self._entry} gave tracks {list(answer.shape)} for {num_frames} frames and "
                f"{len(points)} points."
            )
        # Row 0 stays as asked: the released controls have exactly the grid there (spec 6.2).
        places[1:] = answer[0, 1:num_frames].float().cpu().numpy()
        if not np.isfinite(places).all():
            bad = int((~np.isfinite(places)).any(axis=(0, 2)).sum())
            raise ControlError(f"{self._entry}: {bad} of {len(points)} tracks are not finite.")
        found = (seen[0, 1:num_frames].float() > 0.5).cpu().numpy()
        visible[1:] = found & inside_picture(places[1:], height, width)
        return PointTracks(places, visible)

    def _follow_offline(
        self, frames: NDArray[np.uint8], queries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        video = self._pixels(frames)
        tracks, visible = self._predictor(video, queries=queries, backward_tracking=False)
        return tracks, visible

    def _follow_online(
        self, frames: NDArray[np.uint8], queries: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        step = int(self._predictor.step)
        window = 2 * step
        # Whole windows only: the last frame is held, and the surplus cut from the answer.
        wanted = max(window, -(-len(frames) // step) * step)

        def chunk(start: int) -> torch.Tensor:
            indices = np.minimum(np.arange(start, start + window), len(frames) - 1)
            return self._pixels(frames[indices])

        self._predictor(chunk(0), is_first_step=True, queries=queries)
        for start in range(0, wanted - step, step):
            # Every answer is about all frames so far; the last one is about all of them.
            tracks, visible = self._predictor(chunk(start))
        return tracks, visible

    def _pixels(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return [T, H, W, 3] bytes as [1, T, 3, H, W] float32 on the device, 0 to 255."""
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device)
        return pixels.permute(0, 3, 1, 2)[None].float()

    def _load(self) -> Any:
        import torch

        with _noise_on_stderr():
            predictor = self._built()
        try:
            state = torch.load(self._weights, map_location="cpu", weights_only=True)
            state = state.get("model", state)
            predictor.model.load_state_dict(state)
        except (RuntimeError, AttributeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise MissingResourceError(
                f"{self._weights}: no weights of {self._entry}: {_first_line(error)}",
                hint="longvie models verify cotracker3",
            ) from error
        return predictor.to(self._device).eval()

    def _built(self) -> Any:
        """Return the predictor without weights, from the checkout or torch.hub's cache."""
        import torch

        folder = self._checkout or hub_folder()
        load: Any = torch.hub.load
        try:
            if self._checkout is not None:
                return load(str(self._checkout), self._entry, source="local", pretrained=False)
            return load(
                f"{COTRACKER_REPO}:{COTRACKER_REVISION}",
                self._entry,
                # The licence was accepted, so torch.hub need not ask on stdin.
                trust_repo=True,
                # Its validation looks for the revision among heads of branches, through GitHub's
                # API; a commit is no such head for ever, and its 40 digits say more.
                skip_validation=True,
                verbose=False,
                pretrained=False,
            )
        except ImportError as error:
            raise _missing_package(folder, error.name or _first_line(error)) from error
        except (FileNotFoundError, AttributeError, SyntaxError, TypeError) as error:
            raise self._stale(folder, error) from error
        except RuntimeError as error:
            if "Missing dependencies: " in str(error):
                raise _missing_package(folder, str(error).partition(": ")[2]) from error
            raise self._stale(folder, error) from error
        except OSError as error:
            # URLError and HTTPError too: the code is not cached and GitHub does not answer.
            raise _unreachable(_first_line(error)) from error

    def _stale(self, folder: Path, error: Exception) -> MissingResourceError:
        mend = (
            f"git -C {folder} fetch && git -C {folder} checkout {COTRACKER_REVISION}"
            if self._checkout is not None
            else f"rm -r {folder}   and repeat the command online"
        )
        return MissingResourceError(
            f"{folder}: this copy of co-tracker is old or damaged and gives no {self._entry} "
            f"({_first_line(error)}).",
            hint=mend,
        )


def hub_folder() -> Path:
    """Return where torch.hub keeps the pinned code of CoTracker (in TORCH_HOME where it is set)."""
    import torch

    name = f"{COTRACKER_REPO.replace('/', '_')}_{COTRACKER_REVISION}"
    return Path(torch.hub.get_dir()) / name


def _unreachable(reason: str) -> MissingResourceError:
    return MissingResourceError(
        f"{hub_folder()}: the code of CoTracker3 is not in torch.hub's cache, and it cannot be "
        f"fetched: {reason}.",
        hint=f"Repeat the command online, or pass --tracker path:DIR with a clone of "
        f"https://github.com/{COTRACKER_REPO} in DIR.",
    )


def _missing_package(folder: Path, packages: str) -> MissingResourceError:
    names = packages.replace(",", " ")
    return MissingResourceError(
        f"{folder}: co-tracker needs a package that is not installed: {packages}.",
        hint=f"pip install {names}",
    )


def checkout_digest(checkout: Path, weights: Path) -> str:
    """Return what tells the code of a checkout, and these weights, from any others."""
    code = (checkout / _HUBCONF, *(checkout / "cotracker").rglob("*.py"))
    hashes = file_hashes(checkout, code)
    return fingerprint({**hashes, "weights": _weights_hash(weights)})[:_DIGITS]


def _weights_hash(weights: Path) -> str:
    return file_hashes(weights.parent, [weights])[weights.name]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0].rstrip(".")


@contextlib.contextmanager
def _noise_on_stderr() -> Iterator[None]:
    """Send what third-party code prints to stderr: stdout carries results only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def _fixed_random_numbers(device: str) -> Iterator[None]:
    """Make every clip see the same random numbers, should the model draw any."""
    import torch

    cuda = torch.device(device)
    devices = [cuda] if cuda.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield
