"""`longvie bench`: engines in turns, on a model of a few thousand weights."""

import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from longvie_cli.benchmarking.stages import STAGES


# Each engine is a process of its own, which imports torch and diffusers: seconds for each.
@pytest.mark.parametrize(
    "engines",
    [
        pytest.param(("reference", "fused"), marks=pytest.mark.slow),
        pytest.param(("reference", "fused", "bf16", "fp8", "int8"), marks=pytest.mark.slow),
    ],
    ids=["two", "all"],
)
def test_engines_are_measured_and_near_the_reference(
    longvie, tmp_path: Path, engines: tuple[str, ...]
) -> None:
    began = time.monotonic()
    outcome = longvie(
        *("bench", "--engine", ",".join(engines), "--repeats", "1", "--steps", "2"),
        *("--random-weights", "--picture", "roof.svg", "--json"),
    )
    assert outcome.code == 0, outcome.err
    fields = outcome.fields
    assert fields["schema_version"] == 1 and fields["status"] == "done"
    assert fields["steps"] == 2 and fields["preset"] == "tiny"
    assert fields["machine"]["cores"] >= 1
    results = {result["engine"]: result for result in fields["results"]}
    assert tuple(results) == engines
    # Measured, and not more than the command itself took.
    took = sum(result["seconds_per_clip"] for result in results.values())
    assert 0 < took < time.monotonic() - began
    for name, result in results.items():
        assert set(result["stages"]) == set(STAGES)
        assert min(result["stages"].values()) >= 0
        # No stage is counted twice, and none left out.
        whole = sum(result["stages"].values())
        assert result["seconds_per_clip"] == pytest.approx(whole, rel=1e-6)
        assert min(result["stages"][stage] for stage in ("encode", "decode", "io")) > 0
        assert result["flops"] > 0
        assert result["peak_memory_bytes"] > 1e8
        if name not in ("reference", "fused"):
            assert result["max_difference"] > 0
    assert results["reference"]["dtype"] == results["fused"]["dtype"] == "float32"
    assert results["reference"]["max_difference"] == 0
    assert results["fused"]["max_difference"] < 1e-3
    if len(engines) > 2:
        assert results["bf16"]["dtype"] == "bfloat16" and results["fp8"]["quantize"] == "fp8-w8a8"
    ElementTree.parse(tmp_path / "roof.svg")


@pytest.mark.slow
def test_the_table_is_for_people_and_names_the_machine(longvie) -> None:
    outcome = longvie("bench", "--engine", "fused", "--repeats", "1", "--steps", "1")
    assert outcome.code == 0, outcome.err
    assert "1 steps" in outcome.out and "torch" in outcome.out
    assert "self attention" in outcome.out
    # Nothing to compare with.
    assert "1.00x" in outcome.out


@pytest.mark.slow
def test_a_plan_of_a_smaller_card_offloads_or_quantizes(longvie) -> None:
    def plans(size: str) -> dict:
        outcome = longvie(
            *("bench", "--preset", "longvie2", "--engine", "fused,fp8", "--dry-run", "--json"),
            *("--memory-limit", size),
        )
        assert outcome.code == 0, outcome.err
        return outcome.fields["memory_plans"]

    large, small = plans("80GB"), plans("24GB")
    assert large["fused"]["offload"] == "none"
    assert small["fused"]["offload"] == "group"
    assert small["fp8"]["offload"] == "once"
    for name in ("fused", "fp8"):
        assert small[name]["peak_device_bytes"] <= 24e9
        assert large[name]["estimated"] is True
    assert large["fp8"]["peak_device_bytes"] < large["fused"]["peak_device_bytes"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--engine", "fused,fast"), 2, "--engine"),
        (("--engine", "fused,fused"), 2, "twice"),
        (("--memory-limit", "much"), 2, "24GB"),
        (("--memory-limit", "9" * 400), 2, "24GB"),
        (("--memory-limit", "0GB"), 2, "--memory-limit"),
        (("--memory-limit", "24GB", "--device", "cpu"), 2, "--dry-run"),
        (("--random-weights", "--weights", "there"), 2, "only one"),
        (("--picture", "roof.png"), 2, "SVG"),
        (("--picture", "there.svg"), 4, "exists"),
        (("--preset", "longvie2"), 3, "longvie models pull"),
        (("--repeats", "0"), 2, "--repeats"),
        (("--overwrite",), 2, "it would do nothing"),
        (("--seed-per-clip",), 2, "it would do nothing"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_loaded(
    longvie, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "there.svg").write_text("mine")
    outcome = longvie("bench", "--json", *arguments)
    assert outcome.code == code, outcome.err
    error = json.loads(outcome.out)["error"]
    assert words in error["message"] + error["hint"]
    assert (tmp_path / "there.svg").read_text() == "mine"
