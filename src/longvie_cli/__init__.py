"""longvie: minutes of controllable video, clip after clip, on local disk.

The public names below are imported when they are first used, so that `import longvie_cli` is quick
and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from longvie_cli.version import __version__

if TYPE_CHECKING:
    from longvie_cli.engine.loader import load_pipeline
    from longvie_cli.errors import LongVieError
    from longvie_cli.models.longvie import LongVieTransformer3DModel
    from longvie_cli.models.pipeline import LongViePipeline
    from longvie_cli.settings.presets import load_preset
    from longvie_cli.settings.requests import (
        ExtendRequest,
        ExtractControlsRequest,
        GenerateRequest,
        RedoRequest,
        RunRequest,
        StitchRequest,
    )
    from longvie_cli.workflows.extend import extend
    from longvie_cli.workflows.extract_controls import extract_controls
    from longvie_cli.workflows.generate import generate
    from longvie_cli.workflows.resume import redo, resume
    from longvie_cli.workflows.status import status
    from longvie_cli.workflows.stitch import stitch

_HOMES = {
    "LongVieError": "longvie_cli.errors",
    "LongVieTransformer3DModel": "longvie_cli.models.longvie",
    "LongViePipeline": "longvie_cli.models.pipeline",
    "ExtendRequest": "longvie_cli.settings.requests",
    "ExtractControlsRequest": "longvie_cli.settings.requests",
    "GenerateRequest": "longvie_cli.settings.requests",
    "RedoRequest": "longvie_cli.settings.requests",
    "RunRequest": "longvie_cli.settings.requests",
    "StitchRequest": "longvie_cli.settings.requests",
    "extend": "longvie_cli.workflows.extend",
    "extract_controls": "longvie_cli.workflows.extract_controls",
    "generate": "longvie_cli.workflows.generate",
    "load_pipeline": "longvie_cli.engine.loader",
    "load_preset": "longvie_cli.settings.presets",
    "redo": "longvie_cli.workflows.resume",
    "resume": "longvie_cli.workflows.resume",
    "status": "longvie_cli.workflows.status",
    "stitch": "longvie_cli.workflows.stitch",
}

__all__ = [
    "ExtendRequest",
    "ExtractControlsRequest",
    "GenerateRequest",
    "LongVieError",
    "LongViePipeline",
    "LongVieTransformer3DModel",
    "RedoRequest",
    "RunRequest",
    "StitchRequest",
    "__version__",
    "extend",
    "extract_controls",
    "generate",
    "load_pipeline",
    "load_preset",
    "redo",
    "resume",
    "status",
    "stitch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
