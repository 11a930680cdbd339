"""What is finished of a run, as one file that can be watched while the rest is made."""

from __future__ import annotations

import time

from longvie_cli.disk.durable import make_folder, storage_error
from longvie_cli.media.join import join_clips
from longvie_cli.media.metadata import encode_settings
from longvie_cli.planning.job import Job
from longvie_cli.running.delivery import clips_to_join

# Each refresh copies everything once more, so they must not follow the clips of a long video one
# by one: no sooner than this, nor than 20 times what the last one took (5 % of the time at most).
_INTERVAL_SECONDS = 30.0
_RESTS_PER_REFRESH = 20


class LiveVideo:
    """Keeps the file of `--live` at what is finished, replaced in one step, by stream copy.

    Does nothing where the job asks for none.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._path = job.delivery.live
        self._shown = 0
        self._not_before = 0.0

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
        job = self._job
        try:
            make_folder(self._path.parent)
        except OSError as reason:
            raise storage_error(self._path.parent, reason) from reason
        join_clips(
            clips_to_join(job, num_clips),
            self._path,
            fps=job.preset.fps,
            metadata=encode_settings({"tool": "longvie", "live": True, "clips": num_clips}),
            overwrite=True,
        )
        self._shown = num_clips
        ended = time.monotonic()
        self._not_before = ended + max(_INTERVAL_SECONDS, _RESTS_PER_REFRESH * (ended - began))
