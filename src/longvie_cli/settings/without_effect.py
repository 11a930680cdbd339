"""Settings that do nothing beside the others of a request, which a user who gives them is told."""

from __future__ import annotations

from dataclasses import dataclass

from longvie_cli.settings.presets import load_preset
from longvie_cli.settings.requests import (
    BenchRequest,
    ExtendRequest,
    ExtractControlsRequest,
    GenerateRequest,
    Request,
)

_FOUND_IN_PICTURES = ("tracker", "depth_model", "depth_smoothing")


@dataclass(frozen=True)
class _Source:
    """What controls come from.

    Args:
        kind: `video`, `controls`, `camera`, `flight`; `earlier` is what an earlier run had, which
            is not known yet.
        has_picture: Whether a picture is flown through, or would be.
    """

    kind: str
    has_picture: bool


def settings_without_effect(request: Request) -> dict[str, str]:
    """Return the settings that do nothing beside the others, with the reason, by key.

    Whether they were given or are defaults is not looked at.
    """
    if isinstance(request, BenchRequest):
        return _of_bench(request)
    if not isinstance(request, GenerateRequest | ExtendRequest | ExtractControlsRequest):
        return {}
    source = _source(request)
    unused = _found_in_pictures(source)
    if request.depth is None and source.kind != "earlier":
        unused["depth_polarity"] = "there is no --depth"
    if source.kind != "camera" or not source.has_picture:
        unused["fov"] = "no --camera goes through a picture"
    if source.kind in ("camera", "flight"):
        unused["at_cut"] = "only a video, or controls of one, can have cuts"
    if isinstance(request, ExtractControlsRequest):
        return unused | _of_extraction(source)
    unused |= _of_guidance(request)
    if isinstance(request, GenerateRequest):
        return unused | _of_first_frame(request, source)
    if request.at_cut in ("refuse", "ignore"):
        reason = f"with --at-cut {request.at_cut} no scene begins anew"
        unused |= dict.fromkeys(("first_frame", "first_frame_model"), reason)
    return unused


def _of_bench(request: BenchRequest) -> dict[str, str]:
    unused = {
        "seed_per_clip": "one clip is made again and again",
        "compile": "the stages inside a compiled block cannot be timed",
    }
    if request.picture is None:
        unused["overwrite"] = "there is no --picture"
    unused |= _of_guidance(request)
    return unused


def _of_guidance(request: GenerateRequest | ExtendRequest | BenchRequest) -> dict[str, str]:
    if _guidance(request) != 1:
        return {}
    unused = {"negative_prompt": "with --guidance 1 nothing is pushed away from"}
    if request.fast == "guidance":
        unused["fast"] = "with --guidance 1 no negative prompt is evaluated"
    return unused


def _guidance(request: GenerateRequest | ExtendRequest | BenchRequest) -> float | None:
    matters = request.negative_prompt is not None or request.fast == "guidance"
    if request.guidance_scale is not None or not matters:
        return request.guidance_scale
    # Of an extended video it is that of the earlier one, which is not known yet.
    return load_preset(request.preset).guidance_scale if request.preset else None


def _source(request: GenerateRequest | ExtendRequest | ExtractControlsRequest) -> _Source:
    given = [name for name in ("video", "controls", "camera") if getattr(request, name, None)]
    if isinstance(request, ExtendRequest):
        # A new path goes through the last frame.
        return _Source(given[0] if given else "earlier", has_picture=True)
    return _Source(given[0] if given else "flight", has_picture=request.image is not None)


def _found_in_pictures(source: _Source) -> dict[str, str]:
    if source.kind == "controls":
        reason = "--controls hold their depth and tracks already"
        return dict.fromkeys((*_FOUND_IN_PICTURES, "track_grid"), reason)
    if source.kind not in ("camera", "flight"):
        return {}
    reason = "depth and tracks are rendered along the path, not found in pictures"
    unused = dict.fromkeys(_FOUND_IN_PICTURES, reason)
    if source.kind == "camera" and source.has_picture:
        del unused["depth_model"]
    return unused


def _of_extraction(source: _Source) -> dict[str, str]:
    if source.kind == "video":
        return {"seed": "nothing in the controls of a video is drawn from it"}
    return {} if source.has_picture else {"fit": "there is no picture to bring to size"}


def _of_first_frame(request: GenerateRequest, source: _Source) -> dict[str, str]:
    unused: dict[str, str] = {}
    if source.kind in ("camera", "flight") and request.image is None:
        unused["fit"] = "there is no picture to bring to size"
    if request.image is not None:
        unused["first_frame_model"] = "--image is the first frame"
    elif request.first_frame == "video" or (
        request.first_frame is None and source.kind in ("video", "controls")
    ):
        unused["first_frame_model"] = "the first frame is the source's; pass --first-frame prompt"
    return unused
