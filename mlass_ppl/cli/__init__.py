"""The `mlass` command: one file for each subcommand."""

from __future__ import annotations

import typer

from ._malloc import keep_freed_memory
from ._variadic import VariadicCommand
from .app import app as app_command
from .count import count
from .data import data
from .demo import demo
from .evaluate import evaluate
from .importing import importing
from .info import info
from .models import models
from .separate import separate
from .train import train

app = typer.Typer(
    name="mlass",
    help="Source separation as probabilistic programming.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (demo, separate, evaluate, count, models, info):
    app.command(cls=VariadicCommand)(_command)
app.command("app")(app_command)
app.add_typer(train, name="train")
app.add_typer(importing, name="import")
app.add_typer(data, name="data")


def main() -> None:
    """Entry point of the `mlass` script."""
    keep_freed_memory()
    app()
