"""The flags that several commands share, each worded once.

Every default is None: what a flag leaves out is looked up in variables, settings files and the
preset (`settings/resolve.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

JOB = "The job"
SAMPLING = "Model and sampling"
DELIVERY = "The finished file"
CONSOLE = "Settings and output"


def _show_version(value: bool) -> None:
    if value:
        from longvie_cli.version import __version__

        typer.echo(f"longvie {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version",
        callback=_show_version,
        is_eager=True,
        help="Show the version and stop.",
        rich_help_panel=CONSOLE,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="LONGVIE_CONFIG",
        help="Settings file to use for ./longvie.yaml; its keys are the flag names.",
        rich_help_panel=CONSOLE,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        envvar="LONGVIE_JSON",
        help="Print one JSON object on stdout for the path.",
        rich_help_panel=CONSOLE,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q",
        "--quiet",
        envvar="LONGVIE_QUIET",
        help="Only warnings and errors on stderr.",
        rich_help_panel=CONSOLE,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        envvar="LONGVIE_VERBOSE",
        help="Log more; twice for details.",
        rich_help_panel=CONSOLE,
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        envvar="LONGVIE_DEBUG",
        help="Show the traceback of an error.",
        rich_help_panel=CONSOLE,
    ),
]

Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output", metavar="OUT.mp4", help="The file to make.", rich_help_panel=JOB
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("-p", "--prompt", help="What the video shows.", rich_help_panel=JOB),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        "--prompt-file",
        metavar="FILE",
        help="Prompts over time or a clip: `[0s-20s] text` or `[clip 0-3] text` lines, or YAML.",
        rich_help_panel=JOB,
    ),
]
Video = Annotated[
    Path | None,
    typer.Option(
        "--video",
        metavar="FILE",
        help="Video to take depth and tracks from; any size, rate and rotation.",
        rich_help_panel=JOB,
    ),
]
Controls = Annotated[
    Path | None,
    typer.Option(
        "--controls",
        metavar="DIR|cond.json",
        help="Controls made before, by extract-controls or in the released format.",
        rich_help_panel=JOB,
    ),
]
Camera = Annotated[
    str | None,
    typer.Option(
        "--camera",
        metavar="PATH",
        help="Fly this path through the picture or landscape: 'forward 2, turn 30 in 10s, orbit', "
        "or a YAML file of keyframes. Moves: forward, back, left, right, up, down, turn, tilt, "
        "orbit, hold; , is then, + is at the same time; 1 is the median depth of the first frame.",
        rich_help_panel=JOB,
    ),
]
Fov = Annotated[
    float | None,
    typer.Option(
        "--fov",
        help="Horizontal field of view of the picture, in degrees; 55 if not given.",
        rich_help_panel=JOB,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="WIDTHxHEIGHT",
        help="Size of the video, both sides multiples of 16; what the preset was trained at if "
        "not given (tiny 192x112, longvie2 640x352): others may come out worse.",
        rich_help_panel=JOB,
    ),
]
FirstFrameModel = Annotated[
    Path | None,
    typer.Option(
        "--first-frame-model",
        metavar="DIR",
        help="Depth-conditioned text-to-image pipeline (diffusers folder) that makes the first "
        "frame of --first-frame prompt; longvie2 needs one.",
        rich_help_panel=JOB,
    ),
]
RepeatOption = Annotated[
    Literal["pingpong"] | None,
    typer.Option(
        "--repeat",
        help="Go back and forth through a source that is too short.",
        rich_help_panel=JOB,
    ),
]
FitOption = Annotated[
    Literal["crop", "pad", "stretch"] | None,
    typer.Option("--fit", help="How another aspect ratio is made to fit.", rich_help_panel=JOB),
]
Offline = Annotated[
    bool | None,
    typer.Option(
        "--offline", help="Ask no network, as with HF_HUB_OFFLINE=1.", rich_help_panel=CONSOLE
    ),
]
AtCutOption = Annotated[
    Literal["refuse", "restart", "ignore"] | None,
    typer.Option(
        "--at-cut",
        help="Where the source cuts to another scene: refuse (default) names the times, restart "
        "begins anew there, ignore goes on over it.",
        rich_help_panel=JOB,
    ),
]
Tracker = Annotated[
    str | None,
    typer.Option(
        "--tracker",
        metavar="lk|cotracker3|cotracker3-online|path:DIR",
        help="Point tracker of --video: Lucas-Kanade (lk, if not given), or CoTracker3, whose code "
        "and weights are not for commercial use; path: its code in a folder.",
        rich_help_panel=JOB,
    ),
]
TrackGridOption = Annotated[
    str | None,
    typer.Option(
        "--track-grid",
        metavar="COLUMNSxROWS",
        help="Points tracked in a clip; the preset's if not given.",
        rich_help_panel=JOB,
    ),
]
AcceptNoncommercial = Annotated[
    bool | None,
    typer.Option(
        "--accept-noncommercial",
        help="Accept licences that forbid commercial use (CoTracker3: CC-BY-NC-4.0).",
        rich_help_panel=JOB,
    ),
]
Depth = Annotated[
    Path | None,
    typer.Option(
        "--depth",
        metavar="FILE",
        help="Ready depth of the video, a grey video of 8 or 16 bit, instead of estimates.",
        rich_help_panel=JOB,
    ),
]
DepthPolarity = Annotated[
    Literal["near-white", "near-black", "auto"] | None,
    typer.Option(
        "--depth-polarity",
        help="What is near in --depth; auto looks at the video and says what it found.",
        rich_help_panel=JOB,
    ),
]
DepthModel = Annotated[
    str | None,
    typer.Option(
        "--depth-model",
        metavar="NAME|DIR",
        help="embedded; small, base or large (Depth Anything V2; base and large non-commercial); "
        "or the folder of a transformers depth model or a Video-Depth-Anything checkout.",
        rich_help_panel=JOB,
    ),
]
DepthSmoothing = Annotated[
    Literal["none", "flow"] | None,
    typer.Option(
        "--depth-smoothing",
        help="Steady the depth along the motion of the picture; flow for estimates, none for "
        "--depth, if not given.",
        rich_help_panel=JOB,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option("--minutes", help="Length in minutes.", rich_help_panel=JOB),
]
Seconds = Annotated[
    float | None,
    typer.Option("--seconds", help="Length in seconds.", rich_help_panel=JOB),
]
Clips = Annotated[
    int | None,
    typer.Option("--clips", help="Length in clips of the model.", rich_help_panel=JOB),
]

PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset", help="The model: tiny (if not given) or longvie2.", rich_help_panel=SAMPLING
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="DIR",
        help="Folder with the preset's weights: made by `longvie models convert`, or holding the "
        "published files; what `longvie models pull` fetched, if not given.",
        rich_help_panel=SAMPLING,
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N.", rich_help_panel=SAMPLING),
]
DTypeOption = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"] | None,
    typer.Option(
        "--dtype",
        help="Number format; auto is float32 on a CPU and bfloat16 on a GPU.",
        rich_help_panel=SAMPLING,
    ),
]
OffloadOption = Annotated[
    Literal["auto", "none", "model", "group"] | None,
    typer.Option(
        "--offload",
        help="Weights that wait in the machine's memory: none, whole models, or block by block; "
        "auto takes the fastest that fits. Same frames.",
        rich_help_panel=SAMPLING,
    ),
]
QuantizeOption = Annotated[
    Literal["none", "fp8", "int8"] | None,
    typer.Option(
        "--quantize",
        help="Store the transformer's weights in 8 bits: half the memory, other frames.",
        rich_help_panel=SAMPLING,
    ),
]
AttentionOption = Annotated[
    Literal["auto", "native", "cudnn", "flash", "flash3", "sage", "xformers"] | None,
    typer.Option(
        "--attention",
        help="Attention kernel; auto is native. Others round otherwise and need their package.",
        rich_help_panel=SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", help="Number the noise is drawn from; 0 if not given.", rich_help_panel=SAMPLING
    ),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Denoising steps a clip.", rich_help_panel=SAMPLING),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance", help="How strongly the prompt pulls; 1 is off.", rich_help_panel=SAMPLING
    ),
]
NegativePrompt = Annotated[
    str | None,
    typer.Option(
        "--negative-prompt", help="What the video shall not show.", rich_help_panel=SAMPLING
    ),
]
DepthStrength = Annotated[
    float | None,
    typer.Option(
        "--depth-strength",
        help="Scale of the depth control; 0 is off, 1 if not given.",
        rich_help_panel=SAMPLING,
    ),
]
TrackStrength = Annotated[
    float | None,
    typer.Option(
        "--track-strength",
        help="Scale of the point-track control; 0 is off, 1 if not given.",
        rich_help_panel=SAMPLING,
    ),
]

ControlStart = Annotated[
    float | None,
    typer.Option(
        "--control-start",
        help="Fraction of the steps before which depth and tracks do not steer; 0 if not given.",
        rich_help_panel=SAMPLING,
    ),
]
ControlEnd = Annotated[
    float | None,
    typer.Option(
        "--control-end",
        help="Fraction of the steps from which on they no longer steer (0.6 of 50: steps 0 to "
        "29 are steered); 1 if not given.",
        rich_help_panel=SAMPLING,
    ),
]
SeedPerClip = Annotated[
    bool | None,
    typer.Option(
        "--seed-per-clip/--no-seed-per-clip",
        help="Give every clip a noise of its own, of seed + its number; else one for all.",
        rich_help_panel=SAMPLING,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="LoRA (safetensors) and its scale, 1 if not given; may be repeated; none for none.",
        rich_help_panel=SAMPLING,
    ),
]

Crf = Annotated[
    int | None,
    typer.Option(
        "--crf",
        help="H.264 quality, 1 to 51, smaller is better; 18 if not given.",
        rich_help_panel=DELIVERY,
    ),
]
Audio = Annotated[
    str | None,
    typer.Option(
        "--audio", metavar="none|source|FILE", help="Sound of the file.", rich_help_panel=DELIVERY
    ),
]
AudioOfAll = Annotated[
    str | None,
    typer.Option(
        "--audio",
        metavar="none|source|FILE",
        help="Sound of what is added; the earlier video keeps its own. source: of the video it "
        "goes on with; FILE: of the whole video, gone on with from here; none: no sound at all. As "
        "in the earlier video if not given.",
        rich_help_panel=DELIVERY,
    ),
]
AudioOfInputs = Annotated[
    str | None,
    typer.Option(
        "--audio",
        metavar="none|source|FILE",
        help="Sound of the file; that of each input, beside its own frames, if not given. source: "
        "of the video that a run was made from, also where the run is silent.",
        rich_help_panel=DELIVERY,
    ),
]
Overwrite = Annotated[
    bool | None,
    typer.Option(
        "--overwrite",
        help="Replace the output, once the new one is done.",
        rich_help_panel=DELIVERY,
    ),
]
NoClobber = Annotated[
    bool | None,
    typer.Option(
        "--no-clobber",
        help="Do nothing, successfully, if the output exists.",
        rich_help_panel=DELIVERY,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel=JOB),
]
KeepClips = Annotated[
    bool | None,
    typer.Option(
        "--keep-clips/--no-keep-clips",
        help="Keep the single clips in the run folder (the last frames always stay, for extend).",
        rich_help_panel=DELIVERY,
    ),
]
EmbedMetadata = Annotated[
    bool | None,
    typer.Option(
        "--embed-metadata/--no-embed-metadata",
        help="Write the settings into the file's comment tag.",
        rich_help_panel=DELIVERY,
    ),
]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir",
        metavar="DIR",
        help="Run folder; OUT.longvie beside the output if not given.",
        rich_help_panel=DELIVERY,
    ),
]

Live = Annotated[
    Path | None,
    typer.Option(
        "--live",
        metavar="FILE.mp4",
        help="Keep what is finished in this file, without sound, so that it can be watched: "
        "refreshed after a clip, at most every 30 seconds, and at the end.",
        rich_help_panel=DELIVERY,
    ),
]
Retries = Annotated[
    int | None,
    typer.Option(
        "--retries",
        help="How often a clip that looks wrong (frozen, flat, a jump where it begins) is made "
        "again with another seed; 0 if not given: it is only said.",
        rich_help_panel=SAMPLING,
    ),
]
FromClip = Annotated[
    int | None,
    typer.Option(
        "--from-clip",
        metavar="K",
        help="Change the settings of a run that was begun: keep the clips before K and make the "
        "rest with the new ones.",
        rich_help_panel=JOB,
    ),
]

EXIT_CODES = (
    "[bold]Exit codes[/bold]: 0 done; 1 failure; 2 usage; 3 weights or an optional dependency "
    "missing; 4 output exists or run locked; 5 bad input (media, controls, settings); 75 stopped, "
    "the same command continues; 129 terminal closed; 130 Ctrl-C; 143 SIGTERM."
)


def epilog(*examples: str) -> str:
    """Return the end of a help text: examples, one a line, and the exit codes."""
    lines = ["[bold]Examples[/bold]", *(f"  {example}" for example in examples)]
    return "\n\n".join([*lines, EXIT_CODES])
