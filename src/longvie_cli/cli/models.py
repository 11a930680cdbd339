"""`longvie models`: the weights that presets stand on, fetched, checked and found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import options as o
from longvie_cli.cli.boundary import execute

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import ReportResult
    from longvie_cli.settings.requests import ConvertModelsRequest, ModelsRequest

HELP = "Fetch, check and find the weights that presets stand on."
EPILOG = o.epilog("longvie models list", "longvie models pull longvie2")
LIST_EPILOG = o.epilog("longvie models list", "longvie models list --json | jq .models")
PULL_EPILOG = o.epilog(
    "longvie models pull longvie2", "longvie models pull cotracker3 --accept-noncommercial"
)
VERIFY_EPILOG = o.epilog("longvie models verify", "longvie models verify longvie2")
PATH_EPILOG = o.epilog("longvie models path wan2.1-i2v-14b-480p")
CONVERT_EPILOG = o.epilog(
    "longvie models convert $(longvie models path longvie2) -o longvie2-diffusers/"
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Presets and models; all of them if not given."),
]


def list_models(
    context: typer.Context,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Show every model: what it is for, its licence, its size, and whether it is here."""

    def work(request: ModelsRequest, console: Console) -> ReportResult:
        from longvie_cli.workflows import models as workflow

        return workflow.list_models()

    execute(context, _models_request, work)


def pull(
    context: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Presets and models to fetch.")
    ],
    accept_noncommercial: Annotated[
        bool | None,
        typer.Option(
            "--accept-noncommercial",
            help="Accept licences that forbid commercial use; remembered.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    offline: o.Offline = None,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Fetch models from the hub into its cache (HF_HOME) and check size and hash of every file.

    Says the licences first, and that it all fits on the disk. Stopped at any time, the same
    command goes on with the byte at which it stopped. With --offline it only says what is missing.
    """

    def work(request: ModelsRequest, console: Console) -> ReportResult:
        from longvie_cli.workflows import models as workflow

        return workflow.pull_models(request, console)

    execute(context, _models_request, work)


def verify(
    context: typer.Context,
    names: Names = None,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Read every fetched file and compare size and hash; no network.

    Without names, everything that was fetched. Ends with exit code 3 and the command that fetches
    just the damaged files again.
    """

    def work(request: ModelsRequest, console: Console) -> ReportResult:
        from longvie_cli.workflows import models as workflow

        return workflow.verify_models(request, console)

    execute(context, _models_request, work)


def path(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Presets and models.")],
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Print the folders of models, one a line; exit code 3 if something is missing."""

    def work(request: ModelsRequest, console: Console) -> ReportResult:
        from longvie_cli.workflows import models as workflow

        return workflow.path_of_models(request)

    execute(context, _models_request, work)


def convert(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="Folders with the released files."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT", help="The folder to make.", rich_help_panel=o.JOB
        ),
    ],
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32", "float16"] | None,
        typer.Option(
            "--dtype",
            help="Number format of transformer and text encoder; auto keeps each tensor's own.",
            rich_help_panel=o.JOB,
        ),
    ] = None,
    config: o.Config = None,
    json_result: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    debug: o.Debug = False,
    version: o.Version = False,
) -> None:
    """Make one folder in diffusers layout of the released base, control and attention files."""

    def request_model() -> type[ConvertModelsRequest]:
        from longvie_cli.settings.requests import ConvertModelsRequest

        return ConvertModelsRequest

    def work(request: ConvertModelsRequest, console: Console) -> ReportResult:
        from longvie_cli.workflows import models as workflow

        return workflow.convert_models(request, console)

    execute(context, request_model, work)


def _models_request() -> type[ModelsRequest]:
    from longvie_cli.settings.requests import ModelsRequest

    return ModelsRequest
