"""Loading and converting keep at most one file in memory beside what they make."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTE = 1_000_000
SIZES = {
    "num_attention_heads": 8,
    "attention_head_dim": 64,
    "added_kv_proj_dim": 512,
    "ffn_dim": 2048,
    "num_layers": 8,
    "num_control_layers": 1,
    "control_num_attention_heads": 1,
}
SHARDS = 8


def write(folder: Path) -> None:
    from released_checkpoints import (
        random_pipeline,
        write_configs,
        write_longvie2,
        write_original_base,
    )

    for name, sizes in (("small", {}), ("large", SIZES)):
        pipeline = random_pipeline(**sizes)
        write_configs(pipeline, folder / name / "configs")
        write_original_base(pipeline, folder / name / "wan", num_shards=SHARDS)
        write_longvie2(pipeline, folder / name / "LongVie2")


def memory(field: str) -> int:
    """Return a line of /proc/self/status in bytes: VmRSS is now, VmHWM the most so far.

    (`getrusage` would carry the parent's peak over.)
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def measure(way: str, folder: Path) -> int:
    """Return by how many bytes the process grew at most while it loaded or converted `large`."""
    import torch
    from safetensors.torch import load_file

    from longvie_cli.models.longvie import LongVieTransformer3DModel
    from longvie_cli.models.weights.convert import convert_released
    from longvie_cli.models.weights.load import load_weights
    from longvie_cli.models.weights.names import DIT_NAMES
    from longvie_cli.models.weights.sources import find_released_files

    def run(name: str) -> object:
        files = find_released_files(
            [folder / name / "wan", folder / name / "LongVie2"], configs=folder / name / "configs"
        )
        if way == "convert":
            convert_released(files, folder / f"{name}-ours", max_shard_bytes=20 * MEGABYTE)
            return None
        if way == "naive":
            # What loaders do that read all shards, make the model, and copy.
            state = {}
            for path in files.base.glob("*.safetensors"):
                state |= {DIT_NAMES.to_ours(n): value for n, value in load_file(path).items()}
            config = LongVieTransformer3DModel.load_config(files.configs / "transformer")
            model = LongVieTransformer3DModel.from_config(config)
            model.load_state_dict(state, strict=False)
            return model
        return load_weights(files, dtype=getattr(torch, way))

    # The first run imports and allocates what every run needs.
    run("small")
    before = memory("VmRSS")
    kept = run("large")
    grown = memory("VmHWM") - before
    del kept
    return grown


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.slow
def test_memory_is_the_model_and_two_files_at_most(tmp_path: Path) -> None:
    write(tmp_path)

    def grown(way: str) -> int:
        result = subprocess.run(
            [sys.executable, __file__, way, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return int(result.stdout.split()[-1])

    base = [path.stat().st_size for path in (tmp_path / "large" / "wan").glob("*.safetensors")]
    overlay = (tmp_path / "large" / "LongVie2" / "dit.safetensors").stat().st_size
    assert len(base) == SHARDS and min(base) > 15 * MEGABYTE
    model, two_files = sum(base), 2 * max(*base, overlay)
    naive = grown("naive")
    assert naive > model + two_files
    assert grown("float32") < model + two_files
    # Half the model, and the block norms and tables in float32, which are small.
    assert grown("bfloat16") < model / 2 + two_files
    # No model at all: a file that is read, and one that is read back.
    assert grown("convert") < two_files + 2 * 20 * MEGABYTE < model


if __name__ == "__main__":
    print(measure(sys.argv[1], Path(sys.argv[2])))
