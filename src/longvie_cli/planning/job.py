"""One run, decided to the last number before anything is written or loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longvie_cli.run_folder.layout import RunFolder
from longvie_cli.settings.presets import Fit, Preset
from longvie_cli.settings.requests import AtCut, Delivery, ExtendRequest, GenerateRequest
from longvie_cli.settings.sampling import Sampling
from longvie_cli.sources.source import Source
from longvie_cli.timeline import ClipSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from longvie_cli.media.probe import SourceVideo
    from longvie_cli.media.sound import SoundStream


@dataclass(frozen=True)
class Start:
    """What the first clip starts from.

    Args:
        label: In words, for people and for the comparison of requests.
        image: First frame, [height, width, 3]; None if the model makes it from the prompt.
        history: Last frames of the earlier video, [n, height, width, 3]; None for a new video.
        prompt: What those were made of; None for a new video or where nothing says it.
        image_model: Pipeline folder that makes the picture from prompt and depth; None lets the
            video model do it.
        scenes_label: What pictures of later scenes depend on that are made from their prompt; None
            where scenes start from the source's own.
    """

    label: str
    image: NDArray[np.uint8] | None = None
    history: NDArray[np.uint8] | None = None
    image_model: Path | None = None
    scenes_label: str | None = None
    prompt: str | None = None

    def is_made_for(self, spec: ClipSpec) -> bool:
        """Return whether a clip begins with a picture that has to be made from its prompt."""
        if spec.starts_scene:
            return self.scenes_label is not None
        return spec.index == 0 and self.image is None and self.history is None


@dataclass(frozen=True)
class EarlierVideo:
    """The video that a run continues.

    Args:
        video: The file.
        num_frames: Its frames at the preset's fps.
        joinable: Whether new clips can follow it without encoding it again.
        has_sound: Whether it has sound.
        sound: Its sound, where that goes along.
        fit: How it is brought to size where it is encoded again.
    """

    video: SourceVideo
    num_frames: int
    joinable: bool
    has_sound: bool
    sound: SoundStream | None
    fit: Fit

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.video.path


@dataclass(frozen=True)
class AddedSound:
    """Sound that goes along.

    Args:
        stream: Where it is taken from.
        start: Second of it that belongs to the first frame this run adds.
    """

    stream: SoundStream
    start: float = 0.0

    @property
    def path(self) -> Path:
        """The file whose sound it is."""
        return self.stream.path


@dataclass(frozen=True)
class Choice:
    """What `generate` and `extend` find out each in its own way; from here on they are the same.

    Args:
        command: Which of them.
        request: What is asked, completed from an earlier video where there is one.
        asked: `fingerprint` of the request as it was given.
        preset: Model and geometry.
        sampling: How the model is run.
        source: Where controls come from.
        start: What clip 0 starts from.
        fit: How pictures are brought to size.
        at_cut: What is done where the source cuts.
        sound: What is heard beside the sound of the earlier video.
        earlier: What `extend` continues.
        last_prompt: Its last prompt, which goes on where no other is given.
        inputs: What is read that the request does not name, each after words that name it.
        notes: What the user should know before the run, one line each.
    """

    command: Literal["generate", "extend"]
    request: GenerateRequest | ExtendRequest
    asked: str
    preset: Preset
    sampling: Sampling
    source: Source
    start: Start
    fit: Fit
    at_cut: AtCut | None = None
    sound: AddedSound | None = None
    earlier: EarlierVideo | None = None
    last_prompt: str | None = None
    inputs: tuple[tuple[str, Path], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run of `generate` or `extend`.

    Args:
        command: The command's name.
        output: The file to make.
        folder: Its run folder.
        preset: Model and geometry.
        specs: The clips, in order.
        prompts: One a clip.
        seeds: One a clip, of its noise.
        source: Where controls come from.
        start: What clip 0 starts from.
        sampling: How the model is run.
        delivery: How the file is written.
        sound: What is heard beside the sound of the earlier video.
        earlier: What `extend` continues.
        settings: Everything that decides the output, as JSON without absolute paths.
        captioned: Whether the prompts came with the source.
        asked: `fingerprint` of the request as it was given.
        inputs: Everything it reads, each after the flag or the words that name it.
        notes: What the user should know before the run, one line each.
    """

    command: Literal["generate", "extend"]
    output: Path
    folder: RunFolder
    preset: Preset
    specs: tuple[ClipSpec, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    source: Source
    start: Start
    sampling: Sampling
    delivery: Delivery
    sound: AddedSound | None
    earlier: EarlierVideo | None
    settings: Mapping[str, Any]
    captioned: bool
    asked: str
    inputs: tuple[tuple[str, Path], ...]
    notes: tuple[str, ...]

    @property
    def remarks(self) -> list[str]:
        """What is changed, dropped or guessed of what the user brought, one line each."""
        return [*self.source.conversions(), *self.notes]

    @property
    def added_frames(self) -> int:
        """Frames this run makes."""
        return sum(spec.added_frames for spec in self.specs)

    @property
    def total_frames(self) -> int:
        """Frames of the finished file."""
        return self.added_frames + (self.earlier.num_frames if self.earlier else 0)

    @property
    def source_frames(self) -> int:
        """Frames of the source that the run shows, one it shares with an earlier video included."""
        last = self.specs[-1]
        return last.first_frame + last.skip_frames + last.added_frames

    @property
    def last_source_frame(self) -> int:
        """Frame of the source's timeline that the last frame of the video shows."""
        return self.source.first_frame + self.source_frames - 1
