"""The command line. One subcommand, one file; what a command needs is imported when it runs.

stdout carries results (with ``--json``, one JSON object), stderr carries talk. Exit codes: 0 done, 1 refused or
failed, 2 wrong usage, 130 stopped by the user (a run can be resumed).
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Any

import typer

from forq.cli._options import as_typed
from forq.cli.attack import attack
from forq.cli.demo import demo
from forq.cli.eval import evaluate
from forq.cli.export import export
from forq.cli.inspect import inspect
from forq.cli.ls import ls
from forq.cli.models import models
from forq.cli.predict import predict
from forq.cli.quantize import quantize
from forq.cli.replay import replay
from forq.cli.report import report
from forq.cli.sample import sample
from forq.cli.tune import tune
from forq.cli.verify import verify
from forq.errors import ForqError

app = typer.Typer(
    name="forq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, Callable[..., Any]] = {
    "tune": tune,
    "predict": predict,
    "eval": evaluate,
    "report": report,
    "sample": sample,
    "replay": replay,
    "verify": verify,
    "inspect": inspect,
    "quantize": quantize,
    "export": export,
    "attack": attack,
    "demo": demo,
    "ls": ls,
    "models": models,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"forq {version('forq')}")
        raise typer.Exit


@app.callback()
def root(
    shown: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Fine-tune quantized networks with forward passes only: no gradients, no optimizer states, no float copy."""


def main() -> None:
    """Run the command line; what forq refuses becomes one clear message and exit code 1.

    An interruption ends in exit code 130, which typer sees to.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except ForqError as error:
        _die(as_typed(str(error), _called()))
    except OSError as error:
        writing = error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG)
        if error.filename is None and not writing and error.errno not in (errno.EACCES, errno.EPERM):
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        # A file that may not be touched may be one to read.
        _die(f"{where}{error.strerror}" + ("; nothing that was already written is lost" if writing else ""))


def _called() -> Callable[..., Any] | None:
    """The function of the command that was called."""
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return COMMANDS.get(name)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _die(message: str) -> None:
    typer.echo(f"forq: {message}", err=True)
    sys.exit(1)
