"""Makes the embedded model: `python -m longvie_cli.training.tiny WORK_FOLDER --stage all`.

Stages, in order: `render` (flights to disk), `scenes` (rooms, streets and other pictures with
depth), `code` (the autoencoder's, which decides what latents mean), `text`, `depth`, `controls`
(what the tool extracts from a share of the flights), `frames` (a few of each flight for the
sketcher), `sketch`, `latents`, `still`, `clip`, `decoder` (the autoencoder's, at any time after
`code`), `export` (write the preset folder). Each goes on from what it finds in WORK_FOLDER, so the
same command continues after a kill. With `--adopt PRESET` a new work folder starts from the weights
of a preset instead of nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed

from longvie_cli.training.tiny.adopt import adopt_preset, adopted_stages
from longvie_cli.training.tiny.autoencoder import (
    fit_autoencoder_code,
    load_autoencoder,
    train_decoder,
)
from longvie_cli.training.tiny.config import TinyTraining
from longvie_cli.training.tiny.depth import train_depth_estimator
from longvie_cli.training.tiny.export import export_preset
from longvie_cli.training.tiny.extracted import extract_library
from longvie_cli.training.tiny.flights import render_library
from longvie_cli.training.tiny.latents import LatentLibrary, encode_library
from longvie_cli.training.tiny.scenes import render_scenes
from longvie_cli.training.tiny.sketches import train_sketcher, write_library
from longvie_cli.training.tiny.text import load_text_encoder, train_text_encoder
from longvie_cli.training.tiny.transformer import TransformerTraining, train_transformer

STAGES = (
    *("render", "scenes", "code", "text", "depth", "controls", "frames", "sketch", "latents"),
    *("still", "clip", "decoder", "export"),
)


def _on_all_cores(
    work: Callable[..., None], config: TinyTraining, folder: Path, workers: int, **options: object
) -> None:
    """Run `work` in `workers` single-threaded processes that share the work among them."""
    processes = [
        multiprocessing.Process(
            target=work,
            args=(config, folder),
            kwargs={"worker": worker, "num_workers": workers, **options},
        )
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{work.__name__}: a worker ended with {process.exitcode}")


def _together(
    config: TinyTraining,
    folder: Path,
    *,
    worker: int,
    num_workers: int,
    stage: str,
    rendezvous: str,
    limit: float | None,
) -> None:
    """Train a stage together with the other workers, each on its part of every batch."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=worker, world_size=num_workers
    )
    if stage == "decoder":
        train_decoder(config, folder, stop_after_seconds=limit)
    elif stage == "sketch":
        text_encoder = load_text_encoder(config, folder)
        train_sketcher(config, folder, text_encoder, stop_after_seconds=limit)
    else:
        training = TransformerTraining(
            config,
            LatentLibrary.load(folder / "latents"),
            load_autoencoder(config, folder),
            load_text_encoder(config, folder),
        )
        train_transformer(config, training, folder, stage=stage, stop_after_seconds=limit)
    distributed.destroy_process_group()


def _run(stage: str, config: TinyTraining, folder: Path, workers: int, limit: float | None) -> None:
    """Run one stage that works in the work folder."""
    if stage == "render":
        _on_all_cores(render_library, config, folder, workers)
    elif stage == "scenes":
        _on_all_cores(render_scenes, config, folder, workers)
    elif stage == "code":
        fit_autoencoder_code(config, folder)
    elif stage == "text":
        train_text_encoder(config, folder, stop_after_seconds=limit)
    elif stage == "latents":
        _on_all_cores(encode_library, config, folder, workers)
    elif stage == "controls":
        _on_all_cores(extract_library, config, folder, workers)
    elif stage == "frames":
        _on_all_cores(write_library, config, folder, workers)
    elif stage == "depth":
        train_depth_estimator(config, folder, stop_after_seconds=limit)
    else:
        with tempfile.TemporaryDirectory() as meeting:
            _on_all_cores(
                _together,
                config,
                folder,
                workers,
                stage=stage,
                rendezvous=f"{meeting}/rendezvous",
                limit=limit,
            )


def main() -> None:
    """Run the stages that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m longvie_cli.training.tiny", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="work folder: flights, latents, checkpoints")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stop-after-seconds", type=float, help="end the stage early, resumable")
    parser.add_argument("--adopt", type=Path, help="preset folder to start from")
    parser.add_argument(
        "--adopt-only", help="comma-separated stages to take over: code,text,still,depth,sketch"
    )
    parser.add_argument(
        "--recipe", type=Path, help="JSON object of the settings that differ from the defaults"
    )
    parser.add_argument("--seed", type=int, help="another seed: other flights, other batches")
    parser.add_argument("--out", type=Path, help="preset folder that `export` writes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    changes = json.loads(arguments.recipe.read_text("utf-8")) if arguments.recipe else {}
    config, folder = TinyTraining.model_validate(changes), arguments.folder
    if arguments.seed is not None:
        config = config.model_copy(update={"seed": arguments.seed})
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.adopt and not adopted_stages(folder):
        parts = tuple(arguments.adopt_only.split(",")) if arguments.adopt_only else None
        adopt_preset(config, arguments.adopt, folder, parts)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        if stage == "export":
            export_preset(config, folder, arguments.out or Path("tiny"))
        elif stage not in adopted_stages(folder):
            _run(stage, config, folder, arguments.threads, arguments.stop_after_seconds)


if __name__ == "__main__":
    main()
