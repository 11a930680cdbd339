"""The command as a shell finds it, with as little denoising as there is."""

from __future__ import annotations

import os
import sys

import pytest


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PATH with a `longvie` that is this Python's, few steps, no guidance."""
    command = tmp_path_factory.mktemp("bin") / "longvie"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m longvie_cli "$@"\n')
    command.chmod(0o755)
    return dict(
        os.environ,
        PATH=f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        LONGVIE_STEPS="1",
        LONGVIE_GUIDANCE="1",
    )
