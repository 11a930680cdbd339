"""The process of one engine: `python -m longvie_cli.benchmarking.worker`, asked line by line.

The first line of stdin is a `Task` as JSON; each line after it, `measure` or `release`, is answered
by one line of JSON on stdout. It ends with its stdin. Whatever else is printed goes to stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    """Answer until there is nothing more to answer."""
    # Ctrl-C reaches every process of the terminal; the one that asks ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    from longvie_cli.benchmarking.engine_run import EngineRun, Task
    from longvie_cli.errors import LongVieError

    def answer(fields: dict[str, object]) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    try:
        run = EngineRun(Task.model_validate_json(sys.stdin.readline()))
        answer({"sampling": run.sampling.placed})
        for line in sys.stdin:
            if line.strip() == "release":
                run.release()
                answer({})
            else:
                answer(run.measure().model_dump())
    except LongVieError as error:
        kind = type(error).__name__
        answer({"error": {"kind": kind, "message": error.message, "hint": error.hint}})


if __name__ == "__main__":
    main()
