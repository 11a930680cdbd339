"""The samples that a training file names."""

from __future__ import annotations

from pathlib import Path

from longvie_cli.errors import InputError
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.training import Stage
from longvie_cli.settings.training_config import Data, Worlds, place_named
from longvie_cli.training.dataset import ClipSize, Samples, StoredSamples, WorldSamples


def open_samples(data: Data, preset: Preset, stage: Stage, *, config: Path, key: str) -> Samples:
    """Return a source of samples, its first one looked at.

    Args:
        data: As in the file.
        preset: Says how large the clips are.
        stage: Only `history` has frames before them.
        config: The file, whose folder relative paths start from.
        key: Of `data` in it.

    Raises:
        SettingsError: The path leads out of the file's folder.
        InputError: The folder holds no samples, or others than the stage needs.
    """
    if data.worlds is not None:
        return _worlds(data.worlds, preset, stage)
    assert data.folder is not None, "one of the two is given"
    folder = place_named(config, f"{key}: folder", data.folder)
    samples = _stored(folder)
    sample = samples.sample(0)
    wanted = (preset.num_frames, preset.height, preset.width, 3)
    for name in ("video", "dense", "sparse"):
        found = getattr(sample, name).shape
        if found != wanted:
            raise InputError(
                f"{folder}: its {name} clips are {_size(found)}, but preset {preset.name} is "
                f"trained on {_size(wanted)}.",
                hint=f"Make samples of this size: longvie prepare --preset {preset.name}.",
            )
    return samples


def _worlds(worlds: Worlds, preset: Preset, stage: Stage) -> WorldSamples:
    history = worlds.history_frames if stage == "history" else 0
    return WorldSamples(
        ClipSize(preset.num_frames, preset.height, preset.width, history),
        fps=preset.fps,
        seed=worlds.seed,
        track_columns=preset.track_grid.columns,
        track_rows=preset.track_grid.rows,
        flights=worlds.flights,
    )


def _stored(folder: Path) -> Samples:
    """Open what `longvie prepare` made."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder of samples.")
    return StoredSamples(folder)


def _size(shape: tuple[int, ...]) -> str:
    frames, height, width = shape[:3]
    return f"{frames} frames of {width}x{height}"
