"""What is finished of a run, as one file that can be watched while the rest is made."""

from __future__ import annotations

import time

from longvie_cli.disk.durable import make_folder, storage_error
from longvie_cli.errors import MediaError, OutputConflictError, UsageError
from longvie_cli.media.join import join_clips
from longvie_cli.media.metadata import encode_settings, read_settings
from longvie_cli.planning.job import Job
from longvie_cli.planning.paths import input_files, is_input
from longvie_cli.run_folder.layout import RunFolder

# Each refresh copies everything once more, so they must not follow the clips of a long video one
# by one: no sooner than this, nor than 20 times what the last one took (5 % of the time at most).
_INTERVAL_SECONDS = 30.0
_RESTS_PER_REFRESH = 20


class LiveVideo:
    """Keeps the file of `--live` at what is finished, replaced in one step, by stream copy.

    Does nothing where the job asks for none.

    Raises:
        UsageError: The file is no .mp4, or the output itself.
        OutputConflictError: Something that no `--live` wrote lies there.
    """

    def __init__(self, job: Job, folder: RunFolder) -> None:
        self._job = job
        self._folder = folder
        self._path = job.delivery.live
        self._shown = 0
        self._not_before = 0.0
        if self._path is None:
            return
        inputs = [part.path for part in (job.sound, job.earlier) if part is not None]
        taken = [job.output, *inputs, *input_files(job.delivery)]
        if self._path.suffix.lower() != ".mp4":
            raise UsageError(f"--live {self._path}: the file must be named .mp4.")
        if is_input(self._path, taken):
            raise UsageError(f"--live {self._path}: this file is part of the same command.")
        if self._path.exists() and not job.delivery.overwrite and not self._is_ours():
            raise OutputConflictError(
                f"--live {self._path}: exists already, and is no file that --live wrote.",
                hint="Pass another name, or --overwrite.",
            )

    def refresh(self, num_clips: int, *, last: bool = False) -> None:
        """Show the first clips of the run, if it is time to; `last`: whatever the time.

        Raises:
            OutputConflictError: The file cannot be written.
            ResumableError: The disk is full.
        """
        if self._path is None or num_clips == self._shown or not num_clips:
            return
        began = time.monotonic()
        if not last and began < self._not_before:
            return
        job, folder = self._job, self._folder
        clips = [folder.clip_video(spec.index) for spec in job.specs[:num_clips]]
        if job.earlier is not None:
            clips.insert(0, job.earlier.path if job.earlier.joinable else folder.earlier_video)
        try:
            make_folder(self._path.parent)
        except OSError as reason:
            raise storage_error(self._path.parent, reason) from reason
        join_clips(
            clips,
            self._path,
            fps=job.preset.fps,
            metadata=encode_settings({"tool": "longvie", "live": True, "clips": num_clips}),
            overwrite=True,
        )
        self._shown = num_clips
        ended = time.monotonic()
        self._not_before = ended + max(_INTERVAL_SECONDS, _RESTS_PER_REFRESH * (ended - began))

    def _is_ours(self) -> bool:
        assert self._path is not None
        try:
            return bool((read_settings(self._path) or {}).get("live"))
        except MediaError:
            return False
