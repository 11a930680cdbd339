"""`longvie models`: the weights that presets stand on, fetched, checked and found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from longvie_cli.cli import flags as f
from longvie_cli.cli import options as o
from longvie_cli.cli.command import command

if TYPE_CHECKING:
    from longvie_cli.cli.console import Console
    from longvie_cli.result import ReportResult
    from longvie_cli.settings.requests import ConvertModelsRequest, ModelsRequest

HELP = "Fetch, check and find the weights that presets stand on."
EXAMPLES = ("longvie models list", "longvie models pull longvie2")

_offer_names = f.completed_with(o.model_names)


class Names:
    """Presets and models."""

    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Presets and models.", autocompletion=_offer_names),
    ]


class AnyNames:
    """Presets and models, or all of them."""

    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Presets and models; all of them if not given.",
            autocompletion=_offer_names,
        ),
    ]


class Licences:
    """Leave for licences that forbid commercial use."""

    accept_noncommercial: Annotated[
        bool | None,
        f.flag(
            f.INPUT,
            "Accept licences that forbid commercial use; remembered.",
            "--accept-noncommercial",
        ),
    ]


class Converting:
    """What is converted, to what."""

    inputs: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders with the released files.")
    ]
    output: Annotated[
        Path, f.flag(f.OUTPUT, "The folder to make.", "-o", "--output", metavar="OUT")
    ]
    dtype: Annotated[
        Literal["auto", "bfloat16", "float32", "float16"] | None,
        f.flag(
            f.OUTPUT,
            "Number format of transformer and text encoder; auto keeps each tensor's own.",
        ),
    ]


@command(examples=("longvie models list", "longvie models list --json | jq .models"))
def list_models(request: ModelsRequest, console: Console) -> ReportResult:
    """Show every model: what it is for, its licence, its size, and whether it is here."""
    from longvie_cli.workflows import models as workflow

    return workflow.list_models()


@command(
    *(Names, Licences, o.Offline),
    examples=(
        "longvie models pull longvie2",
        "longvie models pull cotracker3 --accept-noncommercial",
    ),
)
def pull(request: ModelsRequest, console: Console) -> ReportResult:
    """Fetch models from the hub into its cache (HF_HOME) and check size and hash of every file.

    Says the licences first, and that it all fits on the disk. Stopped at any time, the same
    command goes on with the byte at which it stopped. With --offline it only says what is missing.
    """
    from longvie_cli.workflows import models as workflow

    return workflow.pull_models(request, console)


@command(AnyNames, examples=("longvie models verify", "longvie models verify longvie2"))
def verify(request: ModelsRequest, console: Console) -> ReportResult:
    """Read every fetched file and compare size and hash; no network.

    Without names, everything that was fetched. Ends with exit code 3 and the command that fetches
    just the damaged files again.
    """
    from longvie_cli.workflows import models as workflow

    return workflow.verify_models(request, console)


@command(Names, examples=("longvie models path wan2.1-i2v-14b-480p",))
def path(request: ModelsRequest, console: Console) -> ReportResult:
    """Print the folders of models, one a line; exit code 3 if something is missing."""
    from longvie_cli.workflows import models as workflow

    return workflow.path_of_models(request)


@command(
    Converting,
    examples=("longvie models convert $(longvie models path longvie2) -o longvie2-diffusers/",),
)
def convert(request: ConvertModelsRequest, console: Console) -> ReportResult:
    """Make one folder in diffusers layout of the released base, control and attention files."""
    from longvie_cli.workflows import models as workflow

    return workflow.convert_models(request, console)
