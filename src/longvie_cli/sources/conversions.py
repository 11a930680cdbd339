"""What happens to something of the user's on its way to the model, in words."""

from __future__ import annotations

from longvie_cli.media.probe import SourceVideo
from longvie_cli.settings.presets import Fit


def describe_conversion(
    video: SourceVideo, *, height: int, width: int, fps: int, fit: Fit
) -> list[str]:
    """Return one line for each thing that happens to a video on its way to a size and rate."""
    name = video.path.name
    lines = [f"{name}: {line}" for line in _describe_pictures(video)]
    if video.not_believed_seconds is not None:
        lines.append(
            f"{name}: its last frame claims to stay for {video.not_believed_seconds:.0f} s, "
            "against all others; it is shown as long as they are."
        )
    if video.variable_fps is not None:
        slowest, fastest = video.variable_fps
        lines.append(
            f"{name}: variable frame rate ({slowest:.3g} to {fastest:.3g} fps) is resampled by its "
            f"timestamps to {fps} fps."
        )
    elif abs(video.fps - fps) > 0.01:
        lines.append(f"{name}: {video.fps:.4g} fps is resampled to {fps} fps.")
    return lines + describe_fit(name, (video.height, video.width), (height, width), fit)


def describe_fit(name: str, found: tuple[int, int], wanted: tuple[int, int], fit: Fit) -> list[str]:
    """Return in a line how a picture comes to a size, both (height, width); none if it has it."""
    lines: list[str] = []
    if found == wanted:
        return lines
    sizes = f"{name}: {found[1]}x{found[0]} is resized to {wanted[1]}x{wanted[0]}"
    # Above 1 the picture is wider than it shall be.
    relative = (found[1] / found[0]) / (wanted[1] / wanted[0])
    share = round(100 * (1 - min(relative, 1 / relative)))
    if share == 0:
        lines.append(f"{sizes}.")
    elif fit == "crop":
        side = "width" if relative > 1 else "height"
        lines.append(f"{sizes}; {share} % of its {side} is cropped.")
    elif fit == "pad":
        side = "height" if relative > 1 else "width"
        lines.append(f"{sizes}; {share} % of the {side} is padded with black.")
    else:
        lines.append(f"{sizes}; its aspect is stretched by {share} %.")
    return lines


def _describe_pictures(video: SourceVideo) -> list[str]:
    """Return what is done to the pictures of a video before they are resized."""
    picture = video.picture
    lines = []
    if picture.num_streams > 1:
        lines.append(
            f"it holds {picture.num_streams} videos; stream {video.stream} ({video.width}x"
            f"{video.height}, {video.codec}), {video.why_chosen}, is used."
        )
    if picture.hdr is not None:
        lines.append(f"HDR ({picture.hdr}) is tone-mapped to ordinary bt709 colours.")
    elif picture.is_wide_gamut:
        lines.append("bt2020 colours are converted to bt709.")
    elif picture.is_deep:
        lines.append("deep colours are reduced to 8 bits.")
    if picture.color_range == "pc" and picture.matrix not in ("gbr", "unknown"):
        lines.append("its full-range colours (0 to 255) are read as such.")
    if picture.transparent:
        lines.append("where it is transparent, it is shown over black.")
    if picture.interlaced:
        lines.append("interlaced pictures are deinterlaced, the two fields of each into one.")
    if picture.turned:
        lines.append("it is turned or mirrored as the file asks.")
    if video.pixel_aspect != 1:
        across, down = video.pixel_aspect.as_integer_ratio()
        lines.append(f"its {across}:{down} pixels are made square.")
    return lines
