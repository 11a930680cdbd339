"""Every path of a run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longvie_cli.disk.durable import make_folder, storage_error
from longvie_cli.errors import OutputConflictError

_PART = r"(\.part)?"
_OWN_FILE = re.compile(
    r"(run\.json|run\.copy\.json|events\.jsonl|earlier\.mp4|earlier\.json|joined\.mp4"
    rf"|delivery\.json|first(_\d{{4,}})?(_r\d+)?\.png|\.lock|\.lock\.holder){_PART}",
    re.IGNORECASE,
)
_OWN_FILE_OF_ROOM = {
    "clips": re.compile(rf"\d{{4,}}\.(mp4|json){_PART}"),
    "tails": re.compile(rf"\d{{4,}}\.safetensors{_PART}"),
    "prompts": re.compile(rf"[0-9a-f]+\.safetensors{_PART}"),
}
_ROOMS = {"controls", *_OWN_FILE_OF_ROOM}


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run.

    run.json             the request, versions, model hashes, fingerprint
    run.copy.json        the same once more, for the case that run.json is damaged
    events.jsonl         one line an event, append only
    controls/            control clips as rendered
    clips/0000.mp4       only the frames a clip adds
    clips/0000.json      its record, written last: with it the clip exists
    tails/0000.safetensors   the clip's last frames, lossless
    prompts/*.safetensors    embeddings of each distinct prompt, named by text and text encoder
    first.png            the picture clip 0 starts from, where the model made it
    first_0002.png       likewise for clip 2, where the source's scene begins with it
    first_0002_r1.png    the same after a redo forgot the clip once
    earlier.mp4          what `extend` goes on from, where it had to be encoded again
    earlier.json         its hash, written last
    joined.mp4           the whole video, until it is moved to the output
    delivery.json        hash of the output and where its source stands: the run is finished
    .lock, .lock.holder  who works here

    Args:
        root: The folder itself.
    """

    root: Path

    @classmethod
    def beside(cls, output: Path) -> RunFolder:
        """Return the run folder of an output unless told otherwise: `OUT.longvie` for `OUT.mp4`."""
        return cls(output.with_suffix(".longvie"))

    @classmethod
    def of(cls, output: Path, run_dir: Path | None) -> RunFolder:
        """Return the run folder of an output: the one named with --run-dir, or the one beside."""
        return cls.beside(output) if run_dir is None else cls(run_dir)

    def may_replace(self, path: Path) -> bool:
        """Return whether a run in this folder writes, or removes, what lies at a path.

        That is the folder itself, everything in its rooms, and the names it uses beside them.
        """
        try:
            inside = path.resolve().relative_to(self.root.resolve()).parts
        except (OSError, RuntimeError, ValueError):
            return False
        if len(inside) > 1:
            return inside[0].casefold() in _ROOMS
        return not inside or inside[0].casefold() in _ROOMS or bool(_OWN_FILE.fullmatch(inside[0]))

    def own_files(self) -> Iterator[Path]:
        """Yield the files that a run wrote here, outside controls/ and without run.json.

        What somebody else put here has another name and is not among them.
        """
        kept = {self.run_json, self.run_copy, self.events, self.lock, self.lock_holder}
        for path in self.root.iterdir():
            if _OWN_FILE.fullmatch(path.name) and path not in kept:
                yield path
        for room, pattern in _OWN_FILE_OF_ROOM.items():
            if (self.root / room).is_dir():
                yield from (
                    path for path in (self.root / room).iterdir() if pattern.fullmatch(path.name)
                )

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def run_copy(self) -> Path:
        return self.root / "run.copy.json"

    @property
    def is_begun(self) -> bool:
        """Whether a run is here: its `run.json`, or what is left of it."""
        return self.run_json.is_file() or self.run_copy.is_file()

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def controls_dir(self) -> Path:
        return self.root / "controls"

    @property
    def clips_dir(self) -> Path:
        return self.root / "clips"

    @property
    def tails_dir(self) -> Path:
        return self.root / "tails"

    @property
    def prompts_dir(self) -> Path:
        return self.root / "prompts"

    @property
    def earlier_video(self) -> Path:
        return self.root / "earlier.mp4"

    @property
    def earlier_record(self) -> Path:
        return self.root / "earlier.json"

    @property
    def first_picture(self) -> Path:
        return self.root / "first.png"

    def scene_picture(self, clip_index: int, revision: int = 0) -> Path:
        """Return where the picture made for the clip that begins a scene is stored.

        Each revision of the clip has its own, so that none is taken for the next one's.
        """
        if revision:
            return self.root / f"first_{clip_index:04d}_r{revision}.png"
        return self.first_picture if clip_index == 0 else self.root / f"first_{clip_index:04d}.png"

    @property
    def joined_video(self) -> Path:
        return self.root / "joined.mp4"

    @property
    def delivery(self) -> Path:
        return self.root / "delivery.json"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def lock_holder(self) -> Path:
        return self.root / ".lock.holder"

    def clip_video(self, clip_index: int) -> Path:
        """Return where the frames that a clip adds are stored."""
        return self.clips_dir / f"{clip_index:04d}.mp4"

    def clip_record(self, clip_index: int) -> Path:
        """Return where a clip's record is stored."""
        return self.clips_dir / f"{clip_index:04d}.json"

    def tail(self, clip_index: int) -> Path:
        """Return where a clip's last frames are stored without loss."""
        return self.tails_dir / f"{clip_index:04d}.safetensors"

    def prompt(self, key: str) -> Path:
        """Return where the embeddings of a prompt are stored."""
        return self.prompts_dir / f"{key}.safetensors"

    def create(self) -> None:
        """Make the folders that do not exist yet.

        Raises:
            OutputConflictError: They cannot be made.
            ResumableError: The disk is full.
        """
        try:
            for folder in (
                self.root,
                self.controls_dir,
                self.clips_dir,
                self.tails_dir,
                self.prompts_dir,
            ):
                make_folder(folder)
        except OSError as reason:
            raise storage_error(folder, reason) from reason

    def check_no_links(self) -> None:
        """Do nothing if no folder or file in here is a link to somewhere else.

        Through a link a command would write, or remove, outside the run folder.

        Raises:
            OutputConflictError: One is.
        """
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink():
                    raise OutputConflictError(
                        f"{path}: is a link; nothing outside a run folder is touched.",
                        hint="Put what it points to in its place, or remove it.",
                    )
