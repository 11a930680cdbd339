"""Takes finished parts of a preset over into a work folder, so that training goes on from them.

A work folder is large and lives as long as a machine does; what is shipped lives longer. The
autoencoder's code and its latent statistics are taken as they are (the transformer is tied to
them), everything else can be trained on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from longvie_cli.models.autoencoders import autoencoder_class
from longvie_cli.models.block_autoencoder import BlockAutoencoder
from longvie_cli.training.checkpoints import save_checkpoint
from longvie_cli.training.loop import CHECKPOINTS_NAME
from longvie_cli.training.tiny.autoencoder import (
    STATISTICS,
    build_autoencoder,
    store_code,
)
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.depth import START_NAME, build_depth_estimator
from longvie_cli.training.tiny.sketches import build_sketcher
from longvie_cli.training.tiny.text import build_text_encoder
from longvie_cli.training.tiny.transformer import build_image_encoder, build_transformer

logger = logging.getLogger(__name__)

ADOPTED_NAME = "adopted.json"
RECORD_NAME = "TRAINING.json"


def adopt_preset(
    config: TinyTraining, preset: Path, folder: Path, parts: tuple[str, ...] | None = None
) -> None:
    """Write checkpoints of finished stages from a preset's weights, and note which they are.

    `text` and `code` are then finished, the stages `decoder` and `depth` start from what was taken
    over, and the transformer stands where the stage `still` leaves it: `clip` starts from it.

    Args:
        config: Gives the sizes; the preset must have the same.
        preset: A preset folder in diffusers layout, as `export` writes it.
        folder: The work folder.
        parts: Stages to take over (`code`, `text`, `still`, `depth`, `sketch`); all where None.

    Raises:
        RuntimeError: a model of the preset has other sizes than `config` says.
        ValueError: `code` is asked for and the preset's autoencoder has none.
    """
    if (parts is None or "code" in parts) and not issubclass(
        autoencoder_class(preset / "vae"), BlockAutoencoder
    ):
        raise ValueError(f"{preset}: its autoencoder has no block code to take over")
    autoencoder, text_encoder = build_autoencoder(config), build_text_encoder(config)
    stages: dict[str, dict[str, tuple[nn.Module, str]]] = {
        "code": {"autoencoder": (autoencoder, "vae")},
        "text": {"encoder": (text_encoder, "text_encoder")},
        "still": {
            "transformer": (build_transformer(config), "transformer"),
            "image_encoder": (build_image_encoder(config), "image_encoder"),
        },
        "depth": {"depth": (build_depth_estimator(), "depth")},
    }
    if (preset / "sketcher").exists():
        stages["sketch"] = {"sketcher": (build_sketcher(config), "sketcher")}
    taken = [stage for stage in stages if parts is None or stage in parts]
    for stage in taken:
        modules = {}
        for name, (module, room) in stages[stage].items():
            _fill(module, preset / room)
            modules[name] = module
        name = START_NAME if stage == "depth" else stage
        _write_checkpoint(folder / name, modules)
    if "code" in taken:
        saved = json.loads((preset / "vae" / "config.json").read_text("utf-8"))
        store_code(folder, autoencoder, {key: saved[key] for key in STATISTICS})
    record = json.loads((preset / RECORD_NAME).read_text("utf-8"))
    (folder / ADOPTED_NAME).write_text(json.dumps({"stages": taken, "record": record}))
    logger.info("taken over from %s: %s", preset, ", ".join(taken))


def adopted_stages(folder: Path) -> tuple[str, ...]:
    """Return the stages that a work folder took over and need not run."""
    return tuple(stage for stage in _adopted(folder).get("stages", ()) if stage != "depth")


def earlier_record(folder: Path) -> dict[str, Any]:
    """Return what a work folder's adopted parts were trained by, empty where it has none."""
    adopted = _adopted(folder)
    return {"stages": adopted["stages"], "by": adopted["record"]} if adopted else {}


def _adopted(folder: Path) -> dict[str, Any]:
    path = folder / ADOPTED_NAME
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def _fill(module: nn.Module, room: Path) -> None:
    # The class reads its own files: names on disk are not always those in memory.
    loader: Any = type(module)
    shipped = loader.from_pretrained(room, local_files_only=True)
    module.load_state_dict(shipped.float().state_dict())


def _write_checkpoint(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write modules as what a stage ended with that took no step here."""
    trained = {
        f"{name}.{key}": value.detach().float()
        for name, module in modules.items()
        for key, value in module.named_parameters()
    }
    state = {"stage": folder.name, "step": 0, "trained": trained, "optimizer": {}, "average": None}
    save_checkpoint(folder / CHECKPOINTS_NAME, 0, state, keep=1)
