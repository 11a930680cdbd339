"""What may stand at a pipeline's `vae`: the autoencoder of LongVie 2 or that of the embedded model.

Both name their sizes alike in their configs (`z_dim`, `scale_factor_spatial`,
`scale_factor_temporal`, `latents_mean`, `latents_std`), which is all that the pipeline reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from diffusers import AutoencoderKLWan

from longvie_cli.models.block_autoencoder import BlockAutoencoder

VideoAutoencoder: TypeAlias = AutoencoderKLWan | BlockAutoencoder

_CLASSES = {kind.__name__: kind for kind in (AutoencoderKLWan, BlockAutoencoder)}


def autoencoder_class(folder: Path) -> type[VideoAutoencoder]:
    """Return the class that the config of an autoencoder's folder names.

    Raises:
        OSError: the config is not there or cannot be read.
        ValueError: it names none of ours.
    """
    config = AutoencoderKLWan.load_config(folder, local_files_only=True)
    name = config.get("_class_name")
    if name not in _CLASSES:
        raise ValueError(f"{folder}: an autoencoder is one of {', '.join(_CLASSES)}, not {name}")
    return _CLASSES[name]


def empty_autoencoder(folder: Path) -> VideoAutoencoder:
    """Return the autoencoder that a folder's config describes, without its weights.

    Raises:
        OSError: the config is not there or cannot be read.
        ValueError: it names none of ours.
    """
    kind = autoencoder_class(folder)
    return kind.from_config(kind.load_config(folder, local_files_only=True))
