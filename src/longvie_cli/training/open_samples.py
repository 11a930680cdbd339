"""The samples that a training file names."""

from __future__ import annotations

from pathlib import Path

from longvie_cli.errors import InputError
from longvie_cli.settings.presets import Preset
from longvie_cli.settings.training import Stage
from longvie_cli.settings.training_config import Data, place_named
from longvie_cli.training.dataset import ClipSize, Samples, WorldSamples
from longvie_cli.training.prepared import PreparedSamples
from longvie_cli.training.sample_store import INDEX_NAME


def open_samples(
    data: Data, preset: Preset, stage: Stage, *, history_frames: int, config: Path, key: str
) -> Samples:
    """Return a source of samples.

    Args:
        data: As in the file.
        preset: Says how large the clips are, and their rate.
        stage: Only `history` has frames before them.
        history_frames: Most of them.
        config: The file, whose folder relative paths start from.
        key: Of `data` in it.

    Raises:
        SettingsError: The path leads out of the file's folder.
        InputError: The folder holds no samples, or damaged ones, or others than the preset needs.
    """
    size = ClipSize(
        preset.num_frames,
        preset.height,
        preset.width,
        history_frames if stage == "history" else 0,
    )
    if data.worlds is not None:
        return WorldSamples(
            size,
            fps=preset.fps,
            seed=data.worlds.seed,
            track_columns=preset.track_grid.columns,
            track_rows=preset.track_grid.rows,
            flights=data.worlds.flights,
        )
    assert data.folder is not None, "one of the two is given"
    folder = place_named(config, f"{key}: folder", data.folder)
    if not (folder / INDEX_NAME).is_file():
        raise InputError(
            f"{config.name}: {key}: folder: {data.folder}: holds no finished samples of "
            "longvie prepare.",
            hint=f"Make them: longvie prepare VIDEOS... --preset {preset.name} -o {data.folder}",
        )
    return PreparedSamples(folder, size, fps=preset.fps)
