"""Every reader of something that anybody may have written, with valid inputs to damage."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from torch import nn

from longvie_cli.controls.control_folder import read_depth_range
from longvie_cli.controls.depth_store import DepthStore
from longvie_cli.controls.files import (
    _recorded_cuts,
    _recorded_num_frames,
    _recorded_ranges,
    read_conditions,
)
from longvie_cli.disk.checksums import with_digest
from longvie_cli.disk.folder_hashes import folder_hashes
from longvie_cli.disk.hashing import hash_file
from longvie_cli.errors import UsageError
from longvie_cli.hub.installed import preset_status
from longvie_cli.hub.record import RECORD_NAME, known_record, repo_folder
from longvie_cli.hub.registry import REGISTRY
from longvie_cli.media.image import image_size, read_image
from longvie_cli.media.metadata import encode_settings, ffmetadata, settings_in
from longvie_cli.media.probe import SourceVideo
from longvie_cli.media.writer import written_video
from longvie_cli.models.lora_files import judge_lora
from longvie_cli.models.weights.files import TensorFiles, find_shards
from longvie_cli.planning.earlier import Earlier, about_of_tag
from longvie_cli.planning.extend import completed, preset_of, sampling_of
from longvie_cli.planning.job import Start
from longvie_cli.planning.rest_of_source import source_to_go_on_with
from longvie_cli.progress import SilentProgress
from longvie_cli.run_folder.events import append_event, read_events
from longvie_cli.run_folder.find import output_of, run_that_delivered
from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.run_folder.manifest import (
    Redo,
    RunInputs,
    StoredDepth,
    read_manifest,
    read_record,
    write_manifest,
    write_record,
)
from longvie_cli.run_folder.run import Run
from longvie_cli.run_folder.tails import load_tail, save_tail
from longvie_cli.settings.camera_path import CameraPath, read_camera_path
from longvie_cli.settings.presets import preset_folder, read_preset
from longvie_cli.settings.prompts import (
    TimedPrompt,
    check_clips_fit,
    check_prompts_fit,
    prompt_at,
    prompt_of_clip,
    read_prompt_file,
    seed_of_clip,
)
from longvie_cli.settings.request_json import files_of, request_json, request_of_json
from longvie_cli.settings.requests import ExtendRequest, GenerateRequest, RunRequest
from longvie_cli.settings.resolve import COMMANDS, resolve
from longvie_cli.sources.depth_choice import DepthChoice
from longvie_cli.timeline import ClipGeometry, plan_clips
from longvie_cli.training.captions import CaptionFile, Sidecars
from longvie_cli.training.sample_store import (
    INDEX_NAME,
    MEMBERS,
    ShardReader,
    entries_name,
    read_entries,
    read_index,
    tar_name,
)
from longvie_cli.workflows.status import status
from longvie_cli.worlds.camera_motion import CameraMotion
from stored_runs import RUN_ID, stored_manifest, stored_record

from .running import Reader

_FLAGS: Mapping[str, Mapping[str, Any]] = {
    "generate": {"output": Path("out.mp4")},
    "extend": {"output": Path("out.mp4"), "previous": Path("in.mp4")},
    "stitch": {"output": Path("out.mp4"), "inputs": [Path("a.mp4")]},
    "extract-controls": {"output": Path("out"), "video": Path("in.mp4")},
    "prepare": {"output": Path("out"), "inputs": [Path("in.mp4")]},
    "bench": {},
    "evaluate": {"video": Path("in.mp4")},
    "redo": {"run": Path("run"), "clip": 0},
    "run": {"run": Path("run")},
    "models": {"names": ["tiny"]},
    "models-convert": {"output": Path("out"), "inputs": [Path("in")]},
}

_SETTINGS: tuple[Any, ...] = (
    {
        "seed": 7,
        "steps": 8,
        "guidance": 5.0,
        "size": None,
        "prompt": "a forest",
        "camera": "forward 2, turn 30 in 10s",
        "generate": {"minutes": 1.5, "fit": "crop", "audio": "none", "overwrite": True},
        "extend": {"seconds": 3, "lora": ["a.safetensors:0.5"]},
    },
    {
        "generate": {
            "video": "ref.mp4",
            "prompt-file": "prompts.txt",
            "tracker": "path:cotracker:online",
            "track-grid": "14x14",
            "depth-model": "path:depth",
            "lora": [{"path": "a.safetensors", "scale": 0.5}, "b.safetensors"],
            "control_start": 0.1,
            "control_end": 0.9,
            "clips": 3,
            "run_dir": "runs/a",
            "live": "live.mp4",
        },
        "extract-controls": {"preview": True},
        "preset": "tiny",
        "device": "cpu",
    },
)
del _SETTINGS[0]["size"]

_TIMED = [
    {"from": "0s", "to": "20s", "text": "a forest in snow"},
    {"from": 20, "to": "1m30s", "text": "a lake"},
    {"from": "1:30", "text": "the sea"},
]
_BY_CLIP = [
    {"clip": 0, "text": "hills", "seed": 7},
    {"clip": "1-3", "text": "hills in fog"},
    {"clip": 4, "text": "a plain"},
]
_PROMPT_LINES = (
    b"[0s-20s] a forest in snow\n  and wind\n[20s-1m30s] a lake\n[1:30-end] the sea\n",
    b"# clips\n[clip 0] hills\n[clips 1-3] hills in fog\n[clip 4] a plain\n",
)
_PROMPT_WORDS = (
    *("[0s-20s]", "[20s-end]", "[clip", "0]", "[clips", "1-3]", "[", "]", "-", "[1:30-end]"),
    *("[1e5s-2e5s]", "[99999s-end]", "\n", "#", "[0s-0s]", "[5s-1s]", "[clip 0-99999]"),
)
_KEYFRAMES = [
    {"at": "2s", "position": [0, 0.5, 1], "yaw": 10, "pitch": 0, "roll": 0},
    {"at": 4, "position": [1, 0.5, 2], "yaw": -10},
]
_CAMERA = (
    b"forward 2, turn left 30 in 10s, orbit",
    b"up 0.5 + tilt down 10 in 4s, hold 2, pan right 45deg + forward",
    b"look up, look left 20 in 1:30, back .5",
)
_CAMERA_WORDS = (
    *("forward", "back", "turn", "tilt", "orbit", "hold", "look", "up", "down", "left", "right"),
    *(",", "+", "in", "4s", "1:30", "+3", "-2", "1e3", "30deg", "99999", "100001", "in in"),
)
_RUN_SETTINGS = {
    "preset": "tiny",
    "frames": 65,
    "prompts": ["dunes", "hills"],
    "first_frame": "of the video",
    "video": "ref.mp4",
    "video_hash": "00ff",
    "tracker": "lk",
    "track_grid": "14x14",
    "first_source_frame": 0,
    "pingpong": False,
    "fit": "crop",
    "seed": 3,
    "seeds": [3, 4],
    "seed_per_clip": True,
    "steps": 4,
    "guidance": 2.0,
    "negative_prompt": "",
    "depth_strength": 1.0,
    "track_strength": 0.5,
    "control_start": 0.1,
    "control_end": 0.9,
    "dtype": "float32",
    "quantize": "int8",
    "attention": "native",
    "crf": 18,
    "embed_metadata": True,
    "audio": None,
    "lora": [{"name": "a.safetensors", "hash": "00", "scale": 0.5}],
}
_CAMERA_SETTINGS = {
    **{key: _RUN_SETTINGS[key] for key in ("preset", "frames", "fit", "seed", "steps", "guidance")},
    "camera": "forward 2, turn 30 in 10s, orbit",
    "landscape": 4,
    "fov": 55.0,
    "first_source_frame": 0,
    "pingpong": True,
}
_FLIGHT_SETTINGS = {**_CAMERA_SETTINGS, "flight": 4}


def _about(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "tool": "longvie",
        "version": "0.1.0",
        "schema_version": 1,
        "command": "generate",
        "settings": dict(settings),
        "source_kind": kind,
        "last_source_frame": 64,
        "frames": 65,
        "fps": 16,
        "clips": 2,
        "last_prompt": "dunes",
        "captioned": False,
    }


ABOUTS = (
    _about(_RUN_SETTINGS, "video"),
    _about(_CAMERA_SETTINGS, "camera"),
    _about(_FLIGHT_SETTINGS, "flight"),
    _about(_FLIGHT_SETTINGS, "none"),
)
_REQUEST = GenerateRequest(
    output=Path("/videos/out.mp4"),
    video=Path("/videos/ref.mp4"),
    prompts=(TimedPrompt(start_seconds=0, text="dunes"),),
    camera=None,
    clips=2,
    num_inference_steps=4,
    guidance_scale=2,
    lora=["/videos/a.safetensors:0.5"],
)
_MANIFEST = stored_manifest(
    plan_clips(ClipGeometry(33, 16), 65),
    (
        Redo(clip=1, new_request=True, kept_prompts=("dunes",), kept_seeds=(3,)),
        Redo(clip=1, prompt="hills", seed=4),
    ),
    settings=_RUN_SETTINGS,
    request=request_json(_REQUEST),
    inputs=RunInputs(
        source="/videos/ref.mp4",
        source_kind="video",
        lora_paths=("/videos/a.safetensors",),
        depth=StoredDepth(smoothing="flow"),
        states={"/videos/ref.mp4": "00ff"},
    ),
    seed=3,
)
_RECORD = stored_record(seed=3, prompt="dunes")
_DELIVERY = {
    "schema_version": 1,
    "run_id": RUN_ID,
    "output": "out.mp4",
    "output_hash": "99aa06d3014798d86001c324468d497f",  # of an empty file
    "replaces": None,
    "revision": 1,
    "last_clip": 1,
    "about": ABOUTS[0],
}
_EVENTS = (
    {"time": "2026-11-23T15:00:00.000+00:00", "event": "started", "clips": 2, "frames": 65},
    {"time": "2026-11-23T15:00:09.000+00:00", "event": "clip", "index": 0, "seconds": 9.5},
)
_NORMALIZATION = {
    "schema_version": 1,
    "low": 0.25,
    "high": 4.5,
    "num_frames": 50,
    "settings": {"fps": 16, "clip_frames": 33, "cuts": [20]},
    "clips": [[0, 20], [20, 50]],
}
_ENTRY = REGISTRY[0]
_PULL = {
    "record_version": 1,
    "name": _ENTRY.name,
    "repo": _ENTRY.repo,
    "revision": _ENTRY.revision,
    "commit": _ENTRY.revision,
    "files": {"model_index.json": {"bytes": 4, "blob": "0" * 40, "sha256": None}},
}


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _settings_file(folder: Path, data: bytes) -> None:
    config = _file(folder, "longvie.yaml", data)
    _file(folder, "prompts.txt", _PROMPT_LINES[0])
    # Which command it is for is part of the input.
    command = list(COMMANDS)[len(data) % len(COMMANDS)]
    resolve(
        COMMANDS[command], _FLAGS[command], config=config, environment={}, working_folder=folder
    )


def _user_file(folder: Path, data: bytes) -> None:
    import platformdirs

    _file(platformdirs.user_config_path("longvie"), "longvie.yaml", data)
    given = {"generate": _FLAGS["generate"], "extend": _FLAGS["extend"]}
    try:
        for command, flags in given.items():
            resolve(COMMANDS[command], flags, config=None, environment={}, working_folder=folder)
    finally:
        (platformdirs.user_config_path("longvie") / "longvie.yaml").unlink()


def _environment(folder: Path, data: bytes) -> None:
    variables = [
        line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n")
    ]
    # The operating system gives no variable with these characters.
    environment = {name: value for name, _, value in variables if "\0" not in name + value}
    command = ("generate", "extend", "extract-controls")[len(data) % 3]
    _, warnings = resolve(
        COMMANDS[command],
        _FLAGS[command],
        config=None,
        environment=environment,
        working_folder=folder,
    )
    assert all(isinstance(warning, str) for warning in warnings)


def _prompts(folder: Path, data: bytes) -> None:
    prompts = read_prompt_file(_file(folder, "prompts.txt", data))
    timed = tuple(prompt for prompt in prompts if isinstance(prompt, TimedPrompt))
    if timed:
        assert prompt_at(timed, 0.0) == timed[0].text
        check_prompts_fit(timed, 120.0, "prompts.txt")
        assert prompt_at(timed, 119.0)
        return
    assert prompt_of_clip(prompts, 0) == prompts[0].text
    seed_of_clip(prompts, 3)
    check_clips_fit(prompts, 50, "prompts.txt")
    json.dumps([request_json(prompt) for prompt in prompts], ensure_ascii=False).encode()


def _camera_words(folder: Path, data: bytes) -> None:
    _fly(read_camera_path(data.decode("utf-8", "surrogateescape")))


def _camera_file(folder: Path, data: bytes) -> None:
    _fly(read_camera_path(_file(folder, "path.yaml", data)))


def _fly(path: CameraPath) -> None:
    assert read_camera_path(str(path)) == path
    motion = CameraMotion(path)
    for seconds in (0.0, 0.5, 3.7):
        assert all(abs(number) < 1e12 for number in motion.pose(seconds))
    assert path.duration is None or path.duration > 0
    path.phrases(0.0, 5.0)


def _conditions(folder: Path, data: bytes) -> None:
    for name in ("depth_0000.mp4", "track_0000.mp4"):
        (folder / name).touch()
    clips = read_conditions(_file(folder, "cond.json", data))
    for clip in clips:
        assert clip.depth.is_file() and clip.track.is_file()
        named = json.loads(data)
        absolute = any(str(entry["depth"]).startswith("/") for entry in named)
        assert absolute or clip.depth.resolve().is_relative_to(folder.resolve())


def _manifest(folder: Path, data: bytes) -> None:
    manifest = read_manifest(_file(folder, "run.json", data))
    run = Run(RunFolder(folder), manifest)
    output_of(run)
    run.clips()
    DepthChoice.of_stored(manifest.inputs.depth)
    write_manifest(folder / "again.json", manifest)
    assert read_manifest(folder / "again.json") == manifest
    request = request_of_json(manifest.command, manifest.request, run.folder.run_json)
    files_of(manifest.request)
    request_json(request)


def _record(folder: Path, data: bytes) -> None:
    record = read_record(_file(folder, "0000.json", data))
    write_record(folder / "again.json", record)
    assert read_record(folder / "again.json") == record


def _delivery(folder: Path, data: bytes) -> None:
    run, video = RunFolder(folder / "out.longvie"), folder / "out.mp4"
    if not video.is_file():
        run.create()
        inputs = _MANIFEST.inputs.model_copy(update={"source": None})
        write_manifest(run.run_json, _MANIFEST.model_copy(update={"inputs": inputs}))
        save_tail(run.tail(1), np.zeros((8, 4, 6, 3), np.uint8))
        write_record(run.clip_record(1), stored_record(index=1, tail_hash=hash_file(run.tail(1))))
        video.touch()
    run.delivery.write_bytes(data)
    found = run_that_delivered(video)
    made = Run.read(run)
    if found is not None and made.delivery is not None:
        _go_on(Earlier(_looked_at(video), made.delivery.about, made))


def _comment(folder: Path, data: bytes) -> None:
    """What `extend` does with the comment tag of a video, from ffmpeg's report on."""
    video = Path("out.mp4")
    about = about_of_tag(video, settings_in(ffmetadata(data.decode("utf-8", "replace"))))
    if about is not None:
        encode_settings(about.model_dump(mode="json")).encode()
        _go_on(Earlier(_looked_at(video), about))


def _looked_at(video: Path) -> SourceVideo:
    return written_video(video, height=112, width=192, fps=16, num_frames=65)


def _go_on(earlier: Earlier) -> None:
    """Decide what `extend` decides before it looks at any video."""
    request = ExtendRequest(previous=Path("out.mp4"), output=Path("on.mp4"), lora=())
    preset = preset_of(request, earlier)
    asked = completed(request, earlier, preset)
    sampling = sampling_of(request, earlier, preset, SilentProgress())
    request_json(asked)
    earlier.last_greys(preset)
    fit = earlier.settings.fit or preset.fit
    start = Start("end of out.mp4")
    source_to_go_on_with(asked, earlier, preset, fit, sampling, start, SilentProgress(), [])
    with suppress(UsageError):  # The files are not here.
        earlier.loras()


def _events(folder: Path, data: bytes) -> None:
    path = _file(folder, "events.jsonl", data)
    before = read_events(path)
    append_event(path, "again", clips=1)
    after = read_events(path)
    assert after[:-1] == before and after[-1]["event"] == "again"
    json.dumps(after, ensure_ascii=False).encode()


def _status(name: str) -> Callable[[Path, bytes], None]:
    """Return `status` of a run folder in which one file was replaced."""

    def read(folder: Path, data: bytes) -> None:
        run = RunFolder(folder / "out.longvie")
        if not run.clips_dir.is_dir():
            run.create()
            run.clip_video(0).write_bytes(b"video")
            write_record(run.clip_record(0), _RECORD)
            run.delivery.write_text(json.dumps(_DELIVERY))
            write_manifest(run.run_json, _MANIFEST)
        (run.root / name).write_bytes(data)
        report = status(RunRequest(run=run.root))
        json.dumps(report.fields, ensure_ascii=False, allow_nan=False).encode()
        "".join(report.lines).encode()

    return read


def _normalization(folder: Path, data: bytes) -> None:
    _file(folder, "normalization.json", data)
    read_depth_range(folder)
    _recorded_num_frames(folder, 66)
    _recorded_ranges(folder, [33, 33])
    _recorded_cuts(folder)


def _prepared(folder: Path, data: bytes) -> None:
    _file(folder, INDEX_NAME, data)
    assert read_index(folder).samples > 0


def _shard_entries(folder: Path, data: bytes) -> None:
    (folder / tar_name(0)).write_bytes(bytes(4096))
    _file(folder, entries_name(0), data)
    for entry in read_entries(folder, 0, 1):
        ShardReader(folder).read(entry)


def _captions(folder: Path, data: bytes) -> None:
    captions = CaptionFile(_file(folder, "captions.yaml", data))
    captions.of(Path("a.mp4")).at(3.0).encode()


def _sidecar(folder: Path, data: bytes) -> None:
    _file(folder, "a.txt", data)
    Sidecars().of(folder / "a.mp4").at(3.0).encode()


def _preset(folder: Path, data: bytes) -> None:
    preset = read_preset(_file(folder, "preset.json", data), "tiny")
    assert preset.geometry.num_clips(100) and min(preset.control_size) > 0
    preset_status(preset)


def _pull_record(folder: Path, data: bytes) -> None:
    _file(repo_folder(folder, _ENTRY.repo), RECORD_NAME, data)
    known_record(_ENTRY, folder)


def _hash_cache(folder: Path, data: bytes) -> None:
    import platformdirs

    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "config.json").write_text("{}")
    _file(platformdirs.user_cache_path("longvie"), "weight_hashes.json", data)
    assert folder_hashes(folder / "weights")["config.json"]


def _shard_index(folder: Path, data: bytes) -> None:
    _file(folder, "model.safetensors.index.json", data)
    paths, missing = find_shards(folder, "model")
    assert all(path.parent == folder for path in paths) and set(missing) <= set(paths)


def _tensors(folder: Path, data: bytes) -> None:
    path = _file(folder, "model.safetensors", data)
    with_values = TensorFiles([path])
    for name in with_values:
        assert all(side >= 0 for side in with_values.info(name).shape)
        assert with_values[name].shape == with_values.info(name).shape
    with_values.close()


def _tail(folder: Path, data: bytes) -> None:
    assert load_tail(_file(folder, "0000.safetensors", data)).ndim == 4


@cache
def _one_layer() -> nn.Module:
    """Return what the LoRA of the header below is for."""
    attention = nn.ModuleDict({"to_q": nn.Linear(3, 3)})
    block = nn.ModuleDict({"attn1": attention})
    return nn.ModuleDict({"blocks": nn.ModuleList([block])})


def _lora(folder: Path, data: bytes) -> None:
    judge_lora(_file(folder, "style.safetensors", data), _one_layer())


def _depth_batches(folder: Path, data: bytes) -> None:
    """Read a batch whose hash fits, and the same bytes where the hash should be."""
    for content, is_whole in ((with_digest(data), True), (data, False)):
        _file(folder, "depth/000000.npy", with_digest(_BATCH))
        _file(folder, "depth/000001.npy", content)
        store = DepthStore(folder / "depth")
        assert is_whole or store.num_frames == 16
        store.read(0, store.num_frames)
        assert sum(len(batch) for batch in store.batches()) == store.num_frames


def _image(folder: Path, data: bytes) -> None:
    path = _file(folder, "image.png", data)
    image_size(path)
    assert read_image(path, height=8, width=8, fit="crop").shape == (8, 8, 3)


def _array(values: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, values)
    return data.getvalue()


_BATCH = _array(np.linspace(0, 1, 16 * 24, dtype=np.float16).reshape(16, 4, 6))


def _safetensors(header: dict[str, Any], values: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + values


def _with_header(read: Callable[[Path, bytes], None]) -> Callable[[Path, bytes], None]:
    """Return a reader of a header damaged as JSON, with its right length before it."""

    def read_whole(folder: Path, data: bytes) -> None:
        read(folder, struct.pack("<Q", len(data)) + data + bytes(96))

    return read_whole


_TENSOR_HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F8_E4M3", "shape": [24], "data_offsets": [24, 48]},
    "c": {"dtype": "I64", "shape": [2, 3], "data_offsets": [48, 96]},
}
_TAIL_HEADER = {"frames": {"dtype": "U8", "shape": [8, 2, 2, 3], "data_offsets": [0, 96]}}
_LORA_HEADER = {
    "blocks.0.self_attn.q.lora_A.weight": {
        **{"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    },
    "blocks.0.self_attn.q.lora_B.weight": {
        **{"dtype": "F32", "shape": [3, 2], "data_offsets": [24, 48]},
    },
    "rest": {"dtype": "F32", "shape": [12], "data_offsets": [48, 96]},
}


def _images() -> tuple[bytes, ...]:
    from PIL import Image

    picture = Image.fromarray(
        np.arange(16 * 12 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 12, 3)
    )
    pictures = []
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"):
        data = io.BytesIO()
        picture.save(data, format=kind)
        pictures.append(data.getvalue())
    deflated = io.BytesIO()
    picture.save(deflated, format="TIFF", compression="tiff_lzw")
    return (*pictures, deflated.getvalue())


def _json_reader(
    name: str,
    read: Callable[[Path, bytes], None],
    documents: tuple[Any, ...],
    inputs: int,
    codes: set[int],
) -> Reader:
    corpus = tuple(json.dumps(document, indent=2).encode() for document in documents)
    return Reader(name, read, corpus, inputs, frozenset(codes), documents)


def _yaml_reader(
    name: str, read: Callable[[Path, bytes], None], documents: tuple[Any, ...], inputs: int
) -> Reader:
    import yaml

    corpus = tuple(yaml.safe_dump(document, sort_keys=False).encode() for document in documents)
    return Reader(name, read, corpus, inputs, frozenset({2, 5}), documents, yaml=True)


_MANIFEST_JSON = json.loads(_MANIFEST.model_dump_json())
_RECORD_JSON = json.loads(_RECORD.model_dump_json())
_EVENT_LINES = b"".join(json.dumps(event).encode() + b"\n" for event in _EVENTS)

_PREPARED = {
    "schema_version": 1,
    **{"num_frames": 5, "fps": 16, "height": 32, "width": 48, "history_frames": 8, "samples": 3},
    **{"control_height": 32, "control_width": 48, "dropped": {"static": 1}},
    "shards": [{"samples": 2, "size": 4096}, {"samples": 1, "size": 2048}],
    "settings": {"fit": "crop", "videos": [["a.mp4", "00"]]},
}
_MEMBER = {"offset": 512, "size": 9, "hash": xxhash.xxh3_128_hexdigest(bytes(9))}
_ENTRIES = {"samples": [{"shard": 0, "members": dict.fromkeys(MEMBERS, _MEMBER)}]}
_SIDECARS = (b"Green hills\nat dawn", b"[0s-2s] hills\n[2s-end] snow\nand wind")

READERS = (
    _yaml_reader("settings file", _settings_file, _SETTINGS, 3_500),
    _yaml_reader("user settings file", _user_file, _SETTINGS[:1], 1_000),
    Reader(
        "environment",
        _environment,
        (
            b"LONGVIE_SEED=7\nLONGVIE_STEPS=8\nLONGVIE_MINUTES=1.5\nLONGVIE_CAMERA=forward 2",
            b"LONGVIE_LORA=a.safetensors:0.5,b\nLONGVIE_FIT=pad\nLONGVIE_PROMT=x\nLONGVIE_OFFLINE=1",
            b"LONGVIE_TRACK_GRID=14x14\nLONGVIE_TRACKER=lk\nLONGVIE_VIDEO=a.mp4\nLONGVIE_PROMPT=x",
        ),
        8_000,
        frozenset({5, 2}),
        words=("LONGVIE_SEED=-1", "LONGVIE_SEED=1e3", "\nLONGVIE_CLIPS=0", "\nLONGVIE_VIDEO="),
    ),
    _yaml_reader("prompts in YAML", _prompts, (_TIMED, _BY_CLIP), 4_000),
    Reader(
        "prompts in lines", _prompts, _PROMPT_LINES, 12_000, frozenset({5}), words=_PROMPT_WORDS
    ),
    Reader("camera words", _camera_words, _CAMERA, 15_000, frozenset({2, 5}), words=_CAMERA_WORDS),
    _yaml_reader("camera keyframes", _camera_file, (_KEYFRAMES,), 2_000),
    Reader(
        "camera as recorded",
        lambda folder, data: _camera_words(folder, b"keyframes " + data),
        (b"[[0.0, 0, 0, 0, 0, 0, 0], [2.0, 1, 0.5, 2, 10, 0, 0]]",),
        5_000,
        frozenset({2, 5}),
        ([[0.0, 0, 0, 0, 0, 0, 0], [2.0, 1, 0.5, 2, 10, 0, 0]],),
    ),
    _json_reader(
        "cond.json",
        _conditions,
        (
            [{"text": "é", "depth": "depth_0000.mp4", "track": "./example/x/track_0000.mp4"}],
            [{"depth": "a/b/depth_0000.mp4", "track": "track_0000.mp4"}] * 2,
        ),
        10_000,
        {5},
    ),
    _json_reader("run.json", _manifest, (_MANIFEST_JSON,), 5_000, {4}),
    _json_reader("clip record", _record, (_RECORD_JSON,), 8_000, {4}),
    _json_reader("delivery.json", _delivery, (_DELIVERY,), 5_000, {2, 4, 5}),
    Reader("events.jsonl", _events, (_EVENT_LINES,), 5_000, frozenset(), _EVENTS),
    _json_reader("status: run.json", _status("run.json"), (_MANIFEST_JSON,), 1_500, {4, 5}),
    _json_reader("status: record", _status("clips/0000.json"), (_RECORD_JSON,), 1_500, {4}),
    _json_reader("status: delivery", _status("delivery.json"), (_DELIVERY,), 1_500, set()),
    _json_reader("status: events", _status("events.jsonl"), (_EVENTS[0],), 1_500, set()),
    Reader("status: holder", _status(".lock.holder"), (b"4194305\n",), 500, frozenset()),
    _json_reader("normalization.json", _normalization, (_NORMALIZATION,), 8_000, {5}),
    _json_reader("prepared.json", _prepared, (_PREPARED,), 4_000, {5}),
    _json_reader("index of a shard", _shard_entries, (_ENTRIES,), 4_000, {5}),
    _yaml_reader("captions", _captions, ({"a.mp4": "hills", "b/c.mp4": "snow at dawn"},), 2_000),
    Reader("caption of a video", _sidecar, _SIDECARS, 4_000, frozenset({5}), words=_PROMPT_WORDS),
    _json_reader(
        "preset.json",
        _preset,
        (json.loads((preset_folder("tiny") / "preset.json").read_bytes()),),
        3_000,
        {2, 5},
    ),
    _json_reader("pull record", _pull_record, (_PULL,), 5_000, set()),
    _json_reader("weight hashes", _hash_cache, ({"/x": [1, 2, "00"]},), 2_000, set()),
    _json_reader(
        "list of shards", _shard_index, ({"weight_map": {"a": "x.safetensors"}},), 3_000, {3}
    ),
    _json_reader("comment tag", _comment, ABOUTS, 14_000, {2, 5}),
    _json_reader("tensor header", _with_header(_tensors), (_TENSOR_HEADER,), 5_000, {3}),
    _json_reader("tail header", _with_header(_tail), (_TAIL_HEADER,), 3_000, {5}),
    _json_reader("LoRA header", _with_header(_lora), (_LORA_HEADER,), 3_000, {5}),
    Reader(
        "tensor bytes",
        _tensors,
        (_safetensors(_TENSOR_HEADER, bytes(96)),),
        3_000,
        frozenset({3}),
    ),
    Reader("depth batches", _depth_batches, (_BATCH,), 4_000, frozenset({5})),
    Reader("images", _image, _images(), 5_000, frozenset({5})),
)
