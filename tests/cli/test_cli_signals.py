"""A signal stops the work, wherever Python happens to be when it comes."""

from __future__ import annotations

import signal

import pytest

from longvie_cli.cli.console import Console
from longvie_cli.cli.signals import Interrupted, stop_on_signals


class Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)
        for _ in range(10):
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_a_finalizer_is_not_lost() -> None:
    steps = 0
    with pytest.raises(Interrupted) as stopped, stop_on_signals():
        thing = Finalized()
        # Python drops the exception: nothing is raised here.
        del thing
        console = Console(json_result=False, quiet=True)
        console.start("steps", 3)
        for _ in range(3):
            console.advance("steps")
            steps += 1
    assert (stopped.value.signal_number, steps) == (signal.SIGINT, 0)
    # The next work begins unasked.
    with stop_on_signals():
        console.advance("steps")
