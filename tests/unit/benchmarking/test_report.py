"""Medians, rates and differences of engines, and the picture of them."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from longvie_cli.benchmarking.engine_run import ENGINES, ClipTimes, Task
from longvie_cli.benchmarking.machine import Roof, describe_machine, measure_roof
from longvie_cli.benchmarking.report import EngineResult, engine_results, table
from longvie_cli.benchmarking.roofline import roofline_svg
from longvie_cli.benchmarking.stages import STAGES
from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.sampling import Sampling

FLOPS = {stage: 1000 for stage in STAGES if stage != "io"}


def results(tmp_path: Path) -> list[EngineResult]:
    preset = load_preset("tiny")
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 3, 2, 2)
    tasks, times = [], {}
    for name, factor, error in (("reference", 1.0, 0.0), ("bf16", 0.5, 0.25)):
        path = tmp_path / f"{name}.pt"
        torch.save(latents + error * torch.tensor([1, -1]), path)
        task = Task(
            engine=name,
            preset=preset,
            sampling=ENGINES[name].applied_to(Sampling.of(preset, num_inference_steps=2)),
            from_random=False,
            memory_limit=None,
            controls=tmp_path,
            latents=path,
        )
        tasks.append(task)
        times[name] = [
            ClipTimes(
                seconds=factor * 8 * slow,
                stages={stage: factor * slow for stage in STAGES},
                peak_memory_bytes=int(100 * slow),
            )
            # One clip in three met a slow minute.
            for slow in (1.0, 10.0, 1.0)
        ]
    roof = Roof(4000.0, 10.0)
    return engine_results(tasks, times, FLOPS, dict.fromkeys(times, roof))


def test_a_slow_clip_does_not_count_and_rates_are_operations_over_seconds(tmp_path: Path) -> None:
    reference, half = results(tmp_path)
    assert (reference.seconds_per_clip, half.seconds_per_clip) == (8.0, 4.0)
    # Five of the eight stages are in the transformer; two steps.
    assert reference.seconds_per_step == 2.5
    assert reference.peak_memory_bytes == 1000
    facts = half.facts()
    assert facts["dtype"] == "bfloat16"
    assert facts["flops"] == 7000
    assert facts["flops_per_second"]["ffn"] == 2000
    assert facts["share_of_roofline"]["ffn"] == 0.5
    assert "io" not in facts["share_of_roofline"]


def test_differences_are_those_of_the_latents(tmp_path: Path) -> None:
    reference, half = results(tmp_path)
    assert (reference.max_difference, reference.psnr) == (0.0, None)
    assert half.max_difference == pytest.approx(0.25)
    assert half.psnr is not None and 20 < half.psnr < 30
    lines = table([reference, half])
    assert "2.00x" in next(line for line in lines if line.startswith("bf16"))
    assert "0.25" in next(line for line in lines if line.startswith("bf16"))


def test_the_picture_is_svg_with_a_mark_for_each_stage_of_each_engine(tmp_path: Path) -> None:
    found = results(tmp_path)
    moved = {result.engine: {stage: 10 for stage in FLOPS} for result in found}
    picture = ElementTree.fromstring(roofline_svg(found, moved, "tiny <&> more"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in picture.iter(f"{space}text")]
    assert "tiny <&> more" in texts
    for mark in "AXFCG":
        assert texts.count(mark) == 2
    places = [
        (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
        for circle in picture.iter(f"{space}circle")
    ]
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_a_roof_is_what_was_measured() -> None:
    roof = measure_roof(torch.device("cpu"), torch.float32)
    # Slower than any machine that runs this and faster than any there is.
    assert 1e8 < roof.flops_per_second < 1e15
    assert 1e8 < roof.bytes_per_second < 1e13
    machine = describe_machine(torch.device("cpu"))
    assert machine["torch"] == torch.__version__
    assert machine["gpu"] is None and machine["memory_bytes"] > 0
