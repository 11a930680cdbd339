"""Makes the embedded model: `python -m longvie_cli.training WORK_FOLDER --stage all`.

Stages, in order: `render` (flights to disk), `autoencoder`, `text`, `latents`, `still`, `clip`,
`depth`, `export` (write the preset folder). Each goes on from what it finds in WORK_FOLDER, so the
same command continues after a kill.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import distributed

from longvie_cli.training.autoencoder import load_autoencoder, train_autoencoder
from longvie_cli.training.config import TinyTraining
from longvie_cli.training.depth import train_depth_estimator
from longvie_cli.training.export import export_preset
from longvie_cli.training.flights import render_library
from longvie_cli.training.latents import LatentLibrary, encode_library
from longvie_cli.training.text import load_text_encoder, train_text_encoder
from longvie_cli.training.transformer import TransformerTraining, train_transformer

STAGES = ("render", "autoencoder", "text", "latents", "still", "clip", "depth", "export")


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
    if stage == "autoencoder":
        train_autoencoder(config, folder, stop_after_seconds=limit)
    else:
        training = TransformerTraining(
            config,
            LatentLibrary.load(folder / "latents"),
            load_autoencoder(config, folder),
            load_text_encoder(config, folder),
        )
        train_transformer(config, training, folder, stage=stage, stop_after_seconds=limit)
    distributed.destroy_process_group()


def main() -> None:
    """Run the stages that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m longvie_cli.training", description=__doc__)
    parser.add_argument("folder", type=Path, help="work folder: flights, latents, checkpoints")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stop-after-seconds", type=float, help="end the stage early, resumable")
    parser.add_argument("--out", type=Path, help="preset folder that `export` writes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    config, folder = TinyTraining(), arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    limit = arguments.stop_after_seconds
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        if stage == "render":
            _on_all_cores(render_library, config, folder, arguments.threads)
        elif stage == "text":
            train_text_encoder(config, folder, stop_after_seconds=limit)
        elif stage == "latents":
            load_autoencoder(config, folder)  # measures the latent statistics once, for all workers
            _on_all_cores(encode_library, config, folder, arguments.threads)
        elif stage in ("autoencoder", "still", "clip"):
            with tempfile.TemporaryDirectory() as meeting:
                _on_all_cores(
                    _together,
                    config,
                    folder,
                    arguments.threads,
                    stage=stage,
                    rendezvous=f"{meeting}/rendezvous",
                    limit=limit,
                )
        elif stage == "depth":
            train_depth_estimator(config, folder, stop_after_seconds=limit)
        else:
            export_preset(config, folder, arguments.out or Path("tiny"))


if __name__ == "__main__":
    main()
