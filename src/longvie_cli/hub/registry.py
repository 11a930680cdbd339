"""The models that presets stand on: where they are published, under which licence, which files.

Names of presets and of entries never coincide, so one word on the command line means one thing.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from longvie_cli.errors import UsageError
from longvie_cli.settings.presets import PRESET_NAMES, Preset, load_preset

Role = Literal["base", "release", "depth", "tracks"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelEntry:
    """One repository of the hub, cut down to the files that are used.

    Args:
        name: What people call it here.
        role: What it is loaded as.
        repo: Its repository on the hub, `owner/name`.
        revision: The commit it is pinned to. A branch where no commit is known: then the first
            pull records the commit, and every later pull and check is against that.
        allow_patterns: Shell patterns of the files to fetch; nothing else is requested.
        required: Files that must be there, known without asking the hub.
        licence: SPDX identifier, or words where there is none.
        noncommercial: Whether the licence forbids commercial use; then it has to be accepted.
        purpose: What it is for, in a few words.
        approximate_bytes: Size of the files, for messages before the hub was asked.
    """

    name: str
    role: Role
    repo: str
    revision: str
    allow_patterns: tuple[str, ...]
    required: tuple[str, ...]
    licence: str
    noncommercial: bool
    purpose: str
    approximate_bytes: int

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which cannot change, and not a branch."""
        return _COMMIT.fullmatch(self.revision) is not None

    def wants(self, name: str) -> bool:
        """Return whether a file of the repository is one to fetch; none that leads out of it is."""
        if ".." in name.split("/"):
            return False
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.allow_patterns)


def _shards(stem: str, count: int) -> tuple[str, ...]:
    numbered = (f"{stem}-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1))
    return (*numbered, f"{stem}.safetensors.index.json")


# Of the diffusers repository, `scheduler` and `image_processor` are not used (another sampler and
# another resize than LongVie's), `examples` and `assets` are pictures.
_WAN_PATTERNS = (
    "model_index.json",
    "image_encoder/*",
    "text_encoder/*",
    "tokenizer/*",
    "transformer/*",
    "vae/*",
)
_WAN_FILES = (
    "model_index.json",
    "image_encoder/config.json",
    "image_encoder/model.safetensors",
    "text_encoder/config.json",
    *_shards("text_encoder/model", 5),
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    *_shards("transformer/diffusion_pytorch_model", 14),
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)
_DEPTH_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


def _depth_anything(
    size: str, revision: str, licence: str, approximate_bytes: int, purpose: str
) -> ModelEntry:
    return ModelEntry(
        name=f"depth-anything-v2-{size.lower()}",
        role="depth",
        repo=f"depth-anything/Depth-Anything-V2-{size}-hf",
        revision=revision,
        allow_patterns=_DEPTH_FILES,
        required=_DEPTH_FILES,
        licence=licence,
        noncommercial="-NC-" in licence,
        purpose=purpose,
        approximate_bytes=approximate_bytes,
    )


# The commits were not read from the hub itself: each is quoted, for this very repository, by at
# least three unrelated public projects. The hub refuses a commit that a repository does not have.
# No commit of Vchitect/LongVie2 could be found, nor its licence: see docs/decisions.md.
REGISTRY = (
    ModelEntry(
        name="wan2.1-i2v-14b-480p",
        role="base",
        repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
        revision="b184e23a8a16b20f108f727c902e769e873ffc73",
        allow_patterns=_WAN_PATTERNS,
        required=_WAN_FILES,
        licence="Apache-2.0",
        noncommercial=False,
        purpose="base model of longvie2: transformer, autoencoder, text and image encoder",
        approximate_bytes=90_104_000_000,
    ),
    ModelEntry(
        name="longvie2-controls",
        role="release",
        repo="Vchitect/LongVie2",
        revision="main",
        allow_patterns=("control.safetensors", "dit.safetensors"),
        required=("control.safetensors", "dit.safetensors"),
        licence="as stated on its model card (not verified)",
        noncommercial=False,
        purpose="LongVie 2: control branches and self-attention overlay",
        # 2.63 and 4.20 billion parameters, taken as two bytes each.
        approximate_bytes=13_700_000_000,
    ),
    _depth_anything(
        "Small",
        "5426e4f0f36572d16453bbda7a8389317b1bef99",
        "Apache-2.0",
        99_175_000,
        "depth of longvie2",
    ),
    _depth_anything(
        "Base",
        "b1958afc87fb45a9e3746cb387596094de553ed8",
        "CC-BY-NC-4.0",
        390_000_000,
        "finer depth",
    ),
    _depth_anything(
        "Large",
        "7581137eff8d4e94f6e796d3baea0e9fa79b22d2",
        "CC-BY-NC-4.0",
        1_341_000_000,
        "finest depth",
    ),
    ModelEntry(
        name="cotracker3",
        role="tracks",
        repo="facebook/cotracker3",
        revision="bf55ea50d4390e1820a267f131cd6587240fb2c5",
        allow_patterns=("scaled_offline.pth", "scaled_online.pth"),
        required=("scaled_offline.pth", "scaled_online.pth"),
        licence="CC-BY-NC-4.0",
        noncommercial=True,
        purpose="point tracks, instead of the built-in tracker",
        approximate_bytes=203_587_000,
    ),
)


def entry_named(name: str, entries: Sequence[ModelEntry] = REGISTRY) -> ModelEntry:
    """Return the entry of this name.

    Raises:
        UsageError: There is none.
    """
    for entry in entries:
        if entry.name == name:
            return entry
    known = [*PRESET_NAMES, *(entry.name for entry in entries)]
    near = difflib.get_close_matches(name, known, n=1)
    raise UsageError(
        f"{name}: there is no preset or model of this name.",
        hint=f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}.",
    )


def preset_entries(
    preset: Preset, entries: Sequence[ModelEntry] = REGISTRY
) -> tuple[ModelEntry, ...]:
    """Return the entries a preset needs, in the order it names them; none for an embedded one."""
    return tuple(entry_named(name, entries) for name in preset.models)


def entries_of(
    names: Iterable[str], entries: Sequence[ModelEntry] = REGISTRY
) -> tuple[ModelEntry, ...]:
    """Return the entries meant by names of presets and entries, each once.

    Raises:
        UsageError: A name is neither.
    """
    found: dict[str, ModelEntry] = {}
    for name in names:
        meant = (
            preset_entries(load_preset(name), entries)
            if name in PRESET_NAMES
            else (entry_named(name, entries),)
        )
        found.update({entry.name: entry for entry in meant})
    return tuple(found.values())
