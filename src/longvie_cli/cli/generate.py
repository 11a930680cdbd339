"""`longvie generate`: a whole video from a prompt and a source of controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import GenerateRequest

EPILOG = o.epilog(
    'longvie generate --video ref.mp4 --prompt "snowy mountains at dawn" --seconds 10 -o out.mp4',
    'longvie generate --video ref.mp4 --first-frame prompt -p "red desert dunes" -o out.mp4',
    'longvie generate --prompt "green hills, morning fog" --minutes 1 --seed 7 -o flight.mp4',
    'longvie generate --image photo.jpg --camera forward -p "a valley" --minutes 1 -o out.mp4',
    "longvie generate --controls controls/ --image first.png -o out.mp4",
    "longvie generate --video ref.mp4 -p 'misty fjord' --size 256x144 -o wide.mp4",
)


def generate(
    context: typer.Context,
    output: o.Output,
    prompt: o.Prompt = None,
    prompt_file: o.PromptFile = None,
    video: o.Video = None,
    controls: o.Controls = None,
    camera: o.Camera = None,
    fov: o.Fov = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="First frame.", rich_help_panel=o.JOB),
    ] = None,
    first_frame: Annotated[
        Literal["video", "prompt"] | None,
        typer.Option(
            "--first-frame",
            help="Take the first frame from the source, or make it from the prompt and the "
            "source's geometry.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    first_frame_model: o.FirstFrameModel = None,
    minutes: o.Minutes = None,
    seconds: o.Seconds = None,
    clips: o.Clips = None,
    repeat: o.RepeatOption = None,
    at_cut: o.AtCutOption = None,
    size: o.Size = None,
    fit: o.FitOption = None,
    tracker: o.Tracker = None,
    track_grid: o.TrackGridOption = None,
    accept_noncommercial: o.AcceptNoncommercial = None,
    depth: o.Depth = None,
    depth_polarity: o.DepthPolarity = None,
    depth_model: o.DepthModel = None,
    depth_smoothing: o.DepthSmoothing = None,
    from_clip: o.FromClip = None,
    dry_run: o.DryRun = False,
    preset: o.PresetOption = None,
    weights: o.Weights = None,
    device: o.Device = None,
    dtype: o.DTypeOption = None,
    offload: o.OffloadOption = None,
    quantize: o.QuantizeOption = None,
    attention: o.AttentionOption = None,
    seed: o.Seed = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    negative_prompt: o.NegativePrompt = None,
    depth_strength: o.DepthStrength = None,
    track_strength: o.TrackStrength = None,
    control_start: o.ControlStart = None,
    control_end: o.ControlEnd = None,
    seed_per_clip: o.SeedPerClip = None,
    lora: o.Lora = None,
    retries: o.Retries = None,
    crf: o.Crf = None,
    audio: o.Audio = None,
    overwrite: o.Overwrite = None,
    no_clobber: o.NoClobber = None,
    keep_clips: o.KeepClips = None,
    embed_metadata: o.EmbedMetadata = None,
    run_dir: o.RunDir = None,
    live: o.Live = None,
    offline: o.Offline = None,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Make a video from a prompt, following the geometry and motion of a source.

    The source is a video (--video), controls made before (--controls), a camera path (--camera)
    through the --image or over a landscape, or, with none of them, a flight over a landscape drawn
    from the seed. Killed at any time, the same command goes on where it
    stopped and gives the same frames.
    """

    def request_model() -> type[GenerateRequest]:
        from longvie_cli.settings.requests import GenerateRequest

        return GenerateRequest

    def work(request: GenerateRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import generate as workflow

        return workflow.plan(request, console) if dry_run else workflow.generate(request, console)

    execute(context, request_model, work)
