"""The flags of the commands, each worded once, in the groups in which commands take them.

A command names the groups it takes (`command.py`). A flag's name is the key of its setting; every
default is None or off: what a flag leaves out is looked up in variables, settings files and the
preset (`settings/resolve.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from longvie_cli.cli import flags as f

# What a person needs first, shown first where a command has most of them.
MOST_USED = (
    *("prompt", "video", "image", "camera", "seconds", "minutes"),
    *("output", "preset", "seed", "dry_run"),
)


def model_names() -> Sequence[str]:
    """Return the names of presets and models."""
    from longvie_cli.hub.registry import REGISTRY
    from longvie_cli.settings.presets import PRESET_NAMES

    return [*PRESET_NAMES, *(entry.name for entry in REGISTRY)]


def show_version(value: bool) -> None:
    """Print the version and end the command, where it was asked for."""
    if value:
        from longvie_cli.version import __version__

        typer.echo(f"longvie {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    f.flag(f.CONSOLE, "Show the version.", "-V", "--version", callback=show_version, is_eager=True),
]


class Console:
    json: Annotated[
        bool, f.flag(f.CONSOLE, "Print one JSON object on stdout.", "--json", envvar="LONGVIE_JSON")
    ]
    quiet: Annotated[
        bool,
        f.flag(f.CONSOLE, "Only warnings and errors.", "-q", "--quiet", envvar="LONGVIE_QUIET"),
    ]
    verbose: Annotated[
        int | None,
        f.flag(
            f.CONSOLE,
            "Log more; twice for details.",
            *("-v", "--verbose"),
            count=True,
            envvar="LONGVIE_VERBOSE",
        ),
    ]
    debug: Annotated[
        bool, f.flag(f.CONSOLE, "Show tracebacks of errors.", "--debug", envvar="LONGVIE_DEBUG")
    ]
    version: Version


class Config:
    config: Annotated[
        Path | None,
        f.flag(
            f.CONSOLE,
            "Settings file in place of ./longvie.yaml: flag names as keys. LONGVIE_NAME, as in "
            "LONGVIE_SEED=7, sets them too.",
            metavar="FILE",
            envvar="LONGVIE_CONFIG",
        ),
    ]


class DryRun:
    dry_run: Annotated[
        bool, f.flag(f.OUTPUT, "Say what would be done; write nothing.", "--dry-run")
    ]


class Output:
    output: Annotated[
        Path, f.flag(f.OUTPUT, "The file to make.", "-o", "--output", metavar="OUT.mp4")
    ]


class Audio:
    audio: Annotated[
        str | None,
        f.flag(
            f.OUTPUT,
            "Sound of the file.",
            metavar="none|source|FILE",
            values=("none", "source"),
        ),
    ]


class Replacing:
    overwrite: Annotated[
        bool | None,
        f.flag(f.OUTPUT, "Replace the output, once the new one is done.", "--overwrite"),
    ]
    no_clobber: Annotated[
        bool | None,
        f.flag(f.OUTPUT, "Do nothing, successfully, if the output exists.", "--no-clobber"),
    ]


class EmbeddedSettings:
    embed_metadata: Annotated[
        bool | None, f.flag(f.OUTPUT, "Write the settings into the file's comment tag.")
    ]


class Delivery:
    crf: Annotated[
        int | None,
        f.flag(f.OUTPUT, "H.264 quality, 1 to 51, smaller is better; default 18.", metavar="N"),
    ]
    keep_clips: Annotated[
        bool | None, f.flag(f.OUTPUT, "Keep the single clips in the run folder, as by default.")
    ]
    run_dir: Annotated[
        Path | None,
        f.flag(f.OUTPUT, "Run folder; default OUT.longvie beside the output.", metavar="DIR"),
    ]
    live: Annotated[
        Path | None,
        f.flag(
            f.OUTPUT,
            "Keep what is finished in this file, soundless.",
            metavar="FILE.mp4",
        ),
    ]
    retries: Annotated[
        int | None,
        f.flag(
            f.OUTPUT,
            "How often a clip that looks wrong (frozen, flat, a jump at its start) is made again "
            "with another seed; default 0: it is only said.",
            metavar="N",
        ),
    ]
    from_clip: Annotated[
        int | None,
        f.flag(
            f.OUTPUT,
            "Change the settings of a run that was begun: keep the clips before K, make the rest "
            "anew.",
            metavar="K",
        ),
    ]


class Prompts:
    prompt: Annotated[
        str | None, f.flag(f.LOOK, "What the video shows.", "-p", "--prompt", metavar="TEXT")
    ]
    prompt_file: Annotated[
        Path | None,
        f.flag(
            f.LOOK,
            "Prompts over time or a clip: lines `[0s-20s] text` or `[clip 0-3] text`, or YAML.",
            metavar="FILE",
        ),
    ]


class Source:
    video: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Video to take depth and tracks from; any size, rate and rotation.",
            metavar="FILE",
        ),
    ]
    controls: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Controls made before: a folder of extract-controls, or a cond.json of the release.",
            metavar="DIR|FILE",
        ),
    ]


class Camera:
    camera: Annotated[
        str | None,
        f.flag(
            f.INPUT,
            "Path through the picture or landscape: 'forward 2, turn 30 in 10s + up 1, orbit', or "
            "a YAML file of keyframes. Moves: forward, back, left, right, up, down, turn, tilt, "
            "orbit, hold; 1 is the median depth of the first frame.",
            metavar="PATH",
        ),
    ]
    fov: Annotated[
        float | None,
        f.flag(
            f.INPUT,
            "Horizontal field of view of the picture, in degrees; default 55.",
            metavar="DEGREES",
        ),
    ]


class FirstFrameModel:
    first_frame_model: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Depth-conditioned text-to-image pipeline (diffusers) for --first-frame prompt; "
            "longvie2 needs one.",
            metavar="DIR",
        ),
    ]


class Length:
    seconds: Annotated[float | None, f.flag(f.LENGTH, "Length in seconds.", metavar="S")]
    minutes: Annotated[float | None, f.flag(f.LENGTH, "Length in minutes.", metavar="M")]
    clips: Annotated[int | None, f.flag(f.LENGTH, "Length in clips of the model.", metavar="N")]


class Repeat:
    repeat: Annotated[
        Literal["pingpong"] | None,
        f.flag(f.LENGTH, "Go back and forth through a source that is too short."),
    ]


class Cuts:
    at_cut: Annotated[
        Literal["refuse", "restart", "ignore"] | None,
        f.flag(
            f.INPUT,
            "Where the source cuts, dissolves or fades to another scene: refuse (default), restart "
            "with the new scene, or ignore it.",
        ),
    ]


class Size:
    size: Annotated[
        str | None,
        f.flag(
            f.OUTPUT,
            "Size of the video, multiples of 16; default what the preset was trained at: tiny "
            "192x112, longvie2 640x352.",
            metavar="WIDTHxHEIGHT",
        ),
    ]


class Fit:
    fit: Annotated[
        Literal["crop", "pad", "stretch"] | None,
        f.flag(f.INPUT, "How another aspect ratio is made to fit; default the preset's."),
    ]


class Tracking:
    tracker: Annotated[
        str | None,
        f.flag(
            f.INPUT,
            "Point tracker of --video: lk (default, Lucas-Kanade), or CoTracker3, whose code and "
            "weights are not for commercial use; path: its code in a folder.",
            metavar="lk|cotracker3|cotracker3-online|path:DIR",
            values=("lk", "cotracker3", "cotracker3-online", "path:"),
        ),
    ]
    track_grid: Annotated[
        str | None,
        f.flag(f.INPUT, "Points tracked in a clip; default the preset's.", metavar="COLUMNSxROWS"),
    ]
    accept_noncommercial: Annotated[
        bool | None,
        f.flag(
            f.INPUT,
            "Accept licences that forbid commercial use (CoTracker3: CC-BY-NC-4.0).",
            "--accept-noncommercial",
        ),
    ]


class ReadyDepth:
    depth: Annotated[
        Path | None,
        f.flag(
            f.INPUT,
            "Ready depth of the video, a grey video of 8 or 16 bit, in place of estimates.",
            metavar="FILE",
        ),
    ]
    depth_polarity: Annotated[
        Literal["near-white", "near-black", "auto"] | None,
        f.flag(f.INPUT, "What is near in --depth; auto looks and says what it found."),
    ]


class Depth:
    depth_model: Annotated[
        str | None,
        f.flag(
            f.INPUT,
            "embedded, small, base or large (Depth Anything V2; the last two non-commercial), or "
            "the folder of a transformers depth model or of Video-Depth-Anything; default the "
            "preset's.",
            metavar="NAME|DIR",
            values=("embedded", "small", "base", "large"),
        ),
    ]
    depth_smoothing: Annotated[
        Literal["none", "flow"] | None,
        f.flag(
            f.INPUT,
            "Steady the depth along the motion; default flow, with --depth none.",
        ),
    ]


class Preset:
    preset: Annotated[
        str | None,
        f.flag(
            f.MODEL,
            "The model: tiny (default) or longvie2.",
            metavar="NAME",
            values=("tiny", "longvie2"),
        ),
    ]


class Seed:
    seed: Annotated[
        int | None, f.flag(f.LOOK, "Number the noise is drawn from; default 0.", metavar="N")
    ]


class Sampling:
    weights: Annotated[
        Path | None,
        f.flag(
            f.MODEL,
            "Weights of the preset: made by `longvie models convert`, or the published files; "
            "default what `longvie models pull` fetched.",
            metavar="DIR",
        ),
    ]
    lora: Annotated[
        list[str] | None,
        f.flag(
            f.MODEL,
            "LoRA (safetensors) and its scale, default 1; may be repeated; none for none.",
            metavar="FILE[:SCALE]",
        ),
    ]
    steps: Annotated[
        int | None, f.flag(f.MODEL, "Denoising steps a clip; default the preset's.", metavar="N")
    ]
    guidance: Annotated[
        float | None,
        f.flag(
            f.LOOK,
            "How strongly the prompt pulls, 1 is off; default the preset's.",
            metavar="SCALE",
        ),
    ]
    negative_prompt: Annotated[
        str | None,
        f.flag(f.LOOK, "What the video shall not show; default the preset's.", metavar="TEXT"),
    ]
    depth_strength: Annotated[
        float | None,
        f.flag(f.LOOK, "Scale of the depth control, 0 is off; default 1.", metavar="SCALE"),
    ]
    track_strength: Annotated[
        float | None,
        f.flag(f.LOOK, "Scale of the point tracks, 0 is off; default 1.", metavar="SCALE"),
    ]
    control_start: Annotated[
        float | None,
        f.flag(f.LOOK, "Fraction of the steps from which on they steer; default 0.", metavar="0-1"),
    ]
    control_end: Annotated[
        float | None,
        f.flag(
            f.LOOK,
            "Fraction of the steps from which on they no longer steer (0.6 of 50: steps 0 to 29 "
            "are steered); default 1.",
            metavar="0-1",
        ),
    ]
    fast: Annotated[
        Literal["none", "steps", "guidance", "both"] | None,
        f.flag(
            f.MODEL,
            "Foretell evaluations from those before: every second of the later steps, the negative "
            "prompt's at every second, or both; 52, 75 or 41 of 100 remain, and frames are a "
            "little other.",
        ),
    ]
    seed_per_clip: Annotated[
        bool | None, f.flag(f.LOOK, "A noise of its own for each clip, of seed + its number.")
    ]


class Machine:
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        f.flag(f.MACHINE, "Number format; auto: float32, bfloat16 on a GPU."),
    ]
    offload: Annotated[
        Literal["auto", "none", "once", "model", "group"] | None,
        f.flag(
            f.MACHINE,
            "Weights that wait in the machine's memory: none, those used once a clip, models, or "
            "blocks (group); auto: the fastest that fits. Same frames.",
        ),
    ]
    quantize: Annotated[
        Literal["none", "fp8", "int8", "fp8-w8a8", "int8-w8a8"] | None,
        f.flag(
            f.MACHINE,
            "Keep the model in 8 bits: half the memory, other frames; w8a8: multiply so too.",
        ),
    ]
    compile: Annotated[
        Literal["none", "blocks", "graphs"] | None,
        f.flag(
            f.MACHINE,
            "Compile the model's blocks: minutes, nothing faster before the third clip, and frames "
            "round otherwise.",
        ),
    ]
    attention: Annotated[
        Literal["auto", "native", "cudnn", "flash", "flash3", "sage", "xformers"] | None,
        f.flag(
            f.MACHINE,
            "Attention kernel; auto is native. Others round otherwise and need their package.",
        ),
    ]


class Device:
    device: Annotated[
        str | None,
        f.flag(
            f.MACHINE,
            "auto, cpu, cuda or cuda:N.",
            metavar="DEVICE",
            values=("auto", "cpu", "cuda"),
        ),
    ]


class Offline:
    offline: Annotated[
        bool | None, f.flag(f.MACHINE, "Ask no network, as with HF_HUB_OFFLINE=1.", "--offline")
    ]


# What makes a video, wherever it begins.
MAKING = (
    *(Output, DryRun, Prompts, Source, Camera, FirstFrameModel, Length, Repeat, Cuts, Size, Fit),
    *(ReadyDepth, Depth, Tracking, Preset, Seed, Sampling, Device, Machine, Offline),
    *(Audio, Replacing, Delivery, EmbeddedSettings),
)
