"""ffmpeg's arguments for the frames of a video: which of them, how large, in which colours."""

from __future__ import annotations

import math

from longvie_cli.media.ffmpeg import input_arguments
from longvie_cli.media.frames import Fit
from longvie_cli.media.probe import SourceVideo

# Output frame k shows the source frame on screen at second k/fps. Containers that round times to
# milliseconds put a frame up to half a millisecond late, so that instant is taken this much later.
_LATENESS = 1 / 16  # of an output frame: 3.9 ms at 16 fps

# Pictures with more pixels than 4096x2304 are averaged in ffmpeg before they reach us: one of 8K
# would be 100 MB. Colours of HDR are converted in 32-bit floats, which 4K makes slow.
_MAX_PIXELS_HANDED_OVER = 4096 * 2304
_MAX_PIXELS_CONVERTED = 1920 * 1080

# Frames for which one may be shown before it is brought to size ahead of being repeated.
_MAX_REPEATS = 32

# Untagged colours: players take those of high-definition video for bt709, smaller ones for bt601.
_HIGH_DEFINITION = (720, 1280)

# HDR to SDR: 203 cd/m2 is the white of ordinary pictures in HDR (ITU-R BT.2408), so it is 1. What
# is darker than 0.3 of it stays as it is; everything up to 1000 cd/m2 is pressed into the rest.
_WHITE_NITS = 203
_PEAK_NITS = 1000
_TONE_CURVE = f"tonemap=mobius:param=0.3:desat=0:peak={_PEAK_NITS / _WHITE_NITS:.3f}"


def choosing_filters(
    source: SourceVideo,
    fps: int | None,
    start_frame: int,
    num_frames: int | None,
    pixels: list[str],
) -> list[str]:
    """Return the filters that choose frames and give each of them these `pixels`."""
    chosen = [*_timing_filters(source, fps), *range_filters(start_frame, num_frames)]
    if fps is not None and source.longest_seconds * fps > _MAX_REPEATS:
        # ffmpeg makes all repeats of a frame at once: here they are one picture, not as many.
        return [*deinterlacing(source), *pixels, *chosen]
    return [*deinterlacing(source), *chosen, *pixels]


def deinterlacing(source: SourceVideo) -> list[str]:
    """Return the filter that makes whole pictures of interlaced ones, none where none are."""
    # One picture out of the two instants of each; pictures that are not interlaced pass.
    return ["bwdif=mode=send_frame:deint=interlaced"] if source.picture.interlaced else []


def _timing_filters(source: SourceVideo, fps: int | None) -> list[str]:
    if fps is None:
        return []
    # A video shorter than the lateness would be over before it began.
    late = _LATENESS / fps if source.duration_seconds * fps >= 1 else 0.0
    microseconds = round(late * 1_000_000)
    end: list[str] = []
    if source.not_believed_seconds is not None:
        # ffmpeg would show the last frame for as long as it claims to last.
        end = [f"trim=end_frame={max(1, math.ceil((source.duration_seconds - late) * fps))}"]
    return [
        f"settb=1/1000000,setpts=PTS-STARTPTS-{microseconds}",
        f"fps={fps}:round=up",
        *end,
    ]


def range_filters(start_frame: int, num_frames: int | None) -> list[str]:
    """Return the filter that keeps `num_frames` frames (None: all) from `start_frame` on."""
    end = "" if num_frames is None else f":end_frame={start_frame + num_frames}"
    return [f"trim=start_frame={start_frame}{end}"]


def handed_over_size(source: SourceVideo, height: int, width: int, fit: Fit) -> tuple[int, int]:
    """Return the height and width ffmpeg hands out: as decoded, or a whole part of it if huge."""
    rows, columns = source.decoded_height, source.decoded_width
    picture = source.picture
    converted = picture.hdr is not None or picture.is_wide_gamut
    limit = _MAX_PIXELS_CONVERTED if converted else _MAX_PIXELS_HANDED_OVER
    if fit == "native" or rows * columns <= limit:
        return rows, columns
    needed = math.ceil(math.sqrt(rows * columns / limit))
    possible = min(rows // height, columns // width)
    divisor = max(1, min(needed, possible))
    return round(rows / divisor), round(columns / divisor)


def pixel_filters(source: SourceVideo, height: int, width: int) -> list[str]:
    """Return the filters that make 8-bit sRGB-like pictures of this size, transparency over black.

    A stream may change its size half-way; every frame gets the same size.
    """
    picture = source.picture
    smaller = height < source.decoded_height or width < source.decoded_width
    kernel = "area" if smaller else "bicubic"
    scaled = f"scale={width}:{height}:flags={kernel}+accurate_rnd+full_chroma_int+bitexact"
    tags = _missing_tags(source)
    if picture.hdr is not None or picture.is_wide_gamut:
        linear = [
            f"zscale=matrix=gbr:transfer=linear:range=pc:npl={_WHITE_NITS}",
            "format=gbrpf32le",
            "zscale=primaries=bt709",
        ]
        tone = [_TONE_CURVE] if picture.hdr is not None else []
        ordinary = ["zscale=transfer=bt709:range=pc", "format=gbrp"]
        # Twelve bits on the way, and no chroma at half size that would have to be invented again.
        return [*tags, f"{scaled},format=yuv444p12", *linear, *tone, *ordinary, "format=rgb24"]
    if picture.transparent:
        return [*tags, scaled, "format=gbrap", "premultiply=inplace=1", "format=rgb24"]
    return [*tags, scaled, "format=rgb24"]


def grey_filters(height: int, width: int) -> list[str]:
    """Return the filters that make 16-bit grey pictures of this size."""
    return [
        f"scale={width}:{height}:flags=bicubic+accurate_rnd+full_chroma_int+bitexact",
        "format=gray16le",
    ]


def _missing_tags(source: SourceVideo) -> list[str]:
    """Return the filter that says how untagged colours are to be read."""
    picture = source.picture
    tags: dict[str, str] = {}
    wide = picture.hdr is not None or picture.is_wide_gamut
    if wide:
        if picture.color_range == "unknown":
            tags["range"] = "tv"
        if picture.matrix == "unknown":
            tags["colorspace"] = "bt2020nc"
        if picture.primaries == "unknown":
            tags["color_primaries"] = "bt2020"
        if picture.transfer in ("unknown", "bt2020-10", "bt2020-12"):
            tags["color_trc"] = "bt709"  # the three are one curve
    elif picture.matrix == "unknown" and picture.pixel_format.startswith(("yuv", "nv", "p0")):
        sides = sorted((source.decoded_height, source.decoded_width))
        if sides[0] >= _HIGH_DEFINITION[0] or sides[1] >= _HIGH_DEFINITION[1]:
            tags["colorspace"] = "bt709"
    if not tags:
        return []
    return ["setparams=" + ":".join(f"{name}={value}" for name, value in tags.items())]


def decoding_arguments(source: SourceVideo, filters: list[str]) -> list[str]:
    """Return ffmpeg's arguments that decode a video and pass its frames through filters."""
    stream = f"0:{source.stream}"
    frames = ("-map", stream, "-fps_mode", "passthrough", "-vf", ",".join(filters))
    return [*video_arguments(source), *frames]


def video_arguments(source: SourceVideo) -> list[str]:
    """Return ffmpeg's arguments that open a video to decode it."""
    decoder = ["-c:v", source.picture.decoder] if source.picture.decoder else []
    # Without -reinit_filter 0 a stream that changes its size half-way would begin to count anew.
    return ["-reinit_filter", "0", *decoder, *input_arguments(source.path)]
