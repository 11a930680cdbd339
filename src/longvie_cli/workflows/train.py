"""`train`: a stage decided from its file, trained, and written out as a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longvie_cli.disk.durable import write_atomic
from longvie_cli.engine.machine import machine_memory
from longvie_cli.engine.placement import resolve_device
from longvie_cli.errors import OutputConflictError, SettingsError, UsageError
from longvie_cli.models.pipeline import LongViePipeline
from longvie_cli.planning.disk import free_bytes, unwritable
from longvie_cli.progress import Progress, SilentProgress, duration
from longvie_cli.result import TrainResult
from longvie_cli.settings.training import STEPS, Stage
from longvie_cli.settings.training_config import TrainingConfig, read_training_config
from longvie_cli.training.checkpoints import checkpoint_step, finished_checkpoints
from longvie_cli.training.dataset import Samples
from longvie_cli.training.export import export_preset, export_trained
from longvie_cli.training.open_samples import open_samples
from longvie_cli.training.processes import joined, place_of_process
from longvie_cli.training.run_record import RunRecord, read_record, write_record
from longvie_cli.training.stages import trained_names
from longvie_cli.training.start import Start, find_origin, find_preset, find_start, load_start
from longvie_cli.training.training_run import (
    LOSSES_NAME,
    TrainingRun,
    check_same_settings,
    check_steps,
    deciding,
    held,
    load_average,
)
