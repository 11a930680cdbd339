"""Captions written by an image captioning model of transformers, where people wrote none."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from longvie_cli.disk.documents import reason_of
from longvie_cli.disk.folder_hashes import folder_hashes
from longvie_cli.disk.hashing import fingerprint
from longvie_cli.errors import InputError, MissingResourceError
from longvie_cli.media.frames import Frame

_MOST_TOKENS = 60


class Captioner:
    """Describes a picture with a captioning model (BLIP, GIT ...) from a local folder.

    The likeliest words, none drawn at random: a picture has one caption. Models that want to be
    asked a question (chat models) are refused.

    Args:
        folder: The model in transformers' layout, safetensors: nothing is downloaded, no code of
            the folder is run.
        device: Where it runs.

    Raises:
        MissingResourceError: There is no model in the folder.
    """

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise MissingResourceError(
                f"--captioner {folder}: there is no captioning model in this folder.",
                hint=f"hf download Salesforce/blip-image-captioning-base --local-dir {folder}, or "
                "leave --captioner out.",
            )
        self._folder = folder
        self._device = device

    @cached_property
    def name(self) -> str:
        """What decides its captions: folder name and content."""
        return f"{self._folder.absolute().name} {fingerprint(folder_hashes(self._folder))}"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        # Imports diffusers as well, which nothing else here needs.
        from longvie_cli.engine.loader import without_progress_bars

        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            with without_progress_bars():
                processor = AutoProcessor.from_pretrained(self._folder, **options)
                model = AutoModelForImageTextToText.from_pretrained(
                    self._folder, use_safetensors=True, dtype="float32", **options
                )
        # The folder is the user's, and each of transformers' readers has exceptions of its own.
        except Exception as error:
            raise InputError(
                f"--captioner {self._folder}: no captioning model can be loaded from it "
                f"({reason_of(error)})."
            ) from error
        if getattr(processor, "chat_template", None):
            raise InputError(
                f"--captioner {self._folder}: this model answers questions; one that captions a "
                "picture by itself is needed.",
                hint="BLIP or GIT, for instance.",
            )
        return processor, model.to(self._device).eval()

    def load(self) -> None:
        """Load it, so that what is wrong with it is said before the work begins.

        Raises:
            InputError: It is no captioning model.
        """
        _ = self._loaded

    def caption(self, frame: Frame) -> str:
        """Return what a picture, [height, width, 3] RGB, shows: one line, empty if it says nothing.

        Raises:
            InputError: It is no captioning model.
        """
        import torch
        from PIL import Image

        processor, model = self._loaded
        shown = processor(images=Image.fromarray(frame), return_tensors="pt").to(self._device)
        with torch.inference_mode():
            words = model.generate(
                **shown, max_new_tokens=_MOST_TOKENS, do_sample=False, num_beams=1
            )
        (text,) = processor.batch_decode(words, skip_special_tokens=True)
        return " ".join(text.split())
