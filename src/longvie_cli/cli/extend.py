"""`longvie extend`: more of a video that exists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import JobResult
    from longvie_cli.settings.requests import ExtendRequest

EPILOG = o.epilog(
    "longvie extend out.mp4 --seconds 10 -o longer.mp4",
    'longvie extend out.mp4 --prompt "night falls" --minutes 1 -o night.mp4',
    'longvie extend out.mp4 --camera "turn left 90 in 6s, forward" --minutes 1 -o on.mp4',
    "longvie extend out.mp4 --video next.mp4 --depth-model small --audio source -o on.mp4",
    'longvie extend phone.mp4 --video ref.mp4 --prompt "a forest in snow" --clips 2 -o on.mp4',
)


def extend(
    context: typer.Context,
    previous: Annotated[
        Path, typer.Argument(metavar="PREVIOUS.mp4", help="The video to continue.")
    ],
    output: o.Output,
    prompt: o.Prompt = None,
    prompt_file: o.PromptFile = None,
    video: o.Video = None,
    controls: o.Controls = None,
    camera: o.Camera = None,
    fov: o.Fov = None,
    first_frame: Annotated[
        Literal["video", "prompt"] | None,
        typer.Option(
            "--first-frame",
            help="Where a scene begins anew (--at-cut restart): with the source's picture, or with "
            "one made from the prompt. As in the earlier video if not given.",
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
    audio: o.AudioOfAll = None,
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
    """Continue a video of ours without loss, or any other mp4 from its last frames.

    Goes on with what is left of the run's source, with a new --video or --controls, or along a
    --camera path through its last frame. The length is what is added. The earlier frames are
    copied, not encoded again; what is not said is as it was when the earlier video was made.
    """

    def request_model() -> type[ExtendRequest]:
        from longvie_cli.settings.requests import ExtendRequest

        return ExtendRequest

    def work(request: ExtendRequest, console: Console) -> JobResult:
        from longvie_cli.workflows import extend as workflow

        return workflow.plan(request, console) if dry_run else workflow.extend(request, console)

    execute(context, request_model, work)
