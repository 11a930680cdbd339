"""What a run of training says of each step: lines in its folder, and curves for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longvie_cli.disk.durable import write_atomic

LOSSES_NAME = "losses.jsonl"
"""One line a step in a run's folder: step, loss, grad_norm, lr."""


class LossLog:
    """The log of a run; only the first process of a group writes it.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._losses = folder / LOSSES_NAME
        self._writer: Any = None

    def append(self, row: Mapping[str, float]) -> None:
        """Write the line of a step, and show it."""
        with self._losses.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.show(row)

    def show(self, row: Mapping[str, float]) -> None:
        """Hand the numbers of a step to TensorBoard, if it is installed."""
        if find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None:
            # What is there of later steps is of the steps that are taken again.
            self._writer = SummaryWriter(
                str(self._folder / "tensorboard"), purge_step=int(row["step"])
            )
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()

    def cut(self, step: int) -> None:
        """Remove what was logged after a step, which is taken again, and a line cut off."""
        if not self._losses.exists():
            return
        lines = self._losses.read_text(encoding="utf-8").splitlines()
        write_atomic(self._losses, "".join(f"{line}\n" for line in lines[:step]).encode())


def last_loss(folder: Path) -> float | None:
    """Return the loss of the last step that a run's folder tells of; None before the first."""
    try:
        lines = (folder / LOSSES_NAME).read_text(encoding="utf-8").splitlines()
        return float(json.loads(lines[-1])["loss"])
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None
