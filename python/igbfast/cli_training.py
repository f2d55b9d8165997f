"""The commands that need PyTorch: igbfast train | experiment. It is imported when one of them runs, not before."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _checks, _saving

if TYPE_CHECKING:
    from .torch.experiments import Experiment

__all__ = ["register"]

_TRAIN_HELP = (
    "How is the initial bias absorbed?\n\n"
    "Trains the model of a TOML file and logs loss, accuracy, the share of inputs that each class gets, loss, accuracy "
    "and first-layer gradients by class, and gamma by layer. Writes the files that its section 'output' names; without "
    "one, the log as SPEC.nc. Exit code: 0 done, 1 the loss was not finite, 2 bad usage, 3 a file could not be saved, "
    "130 Ctrl-C."
)
_EXPERIMENT_HELP = (
    "How do initial bias and trainability hang together?\n\n"
    "Runs one of the published experiments, in minutes on two cores, and says what it shows. Without a name: which "
    "there are. With a name and --options: what can be --set."
)

NOT_FINITE = 1

_FILES = "Files and output"

Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="No table and no progress bar.", rich_help_panel=_FILES)
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the application."""
    examples = "\n\n".join
    app.command(
        "train",
        help=_TRAIN_HELP,
        epilog=examples(
            [
                "Examples:",
                "igbfast train --example > run.toml",
                "igbfast train run.toml",
                "igbfast train run.toml --resume",
            ]
        ),
    )(train_command)
    app.command(
        "experiment",
        help=_EXPERIMENT_HELP,
        epilog=examples(
            [
                "Examples:",
                "igbfast experiment",
                "igbfast experiment training --figure training.png --output training.nc",
                "igbfast experiment training --set seeds=3 --set activation=erf",
            ]
        ),
    )(experiment_command)


def train_command(
    spec: Annotated[
        Path | None,
        typer.Argument(metavar="SPEC.toml", help="What to train, on what, and how.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Go on from the checkpoint, if there is one.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Read the data and make the model, but do not train.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", metavar="", help="Print a file to begin with, and stop.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Train what a TOML file says."""
    from . import cli

    with cli._one_line_errors(), _with_torch():
        from .torch import specification

        if example:
            typer.echo(specification.EXAMPLE, nl=False)
            return
        if spec is None:
            raise ValueError("train needs a file SPEC.toml; igbfast train --example prints one to begin with")
        if not spec.is_file():
            raise ValueError(f"there is no file {str(spec)!r}; igbfast train --example prints one to begin with")
        wanted = specification.read_spec(spec)
        say = _say_nothing if quiet else _say
        if check:
            specification.checked_files(wanted)
            say(specification.prepared(wanted).words)
            return
        before = _checkpoint_time(wanted.output)
        try:
            run = specification.run_spec(wanted, resume=resume, progress=False if quiet else None, announce=say)
        except KeyboardInterrupt:
            if _checkpoint_time(wanted.output) == before:
                raise
            cli._complain(f"stopped by Ctrl-C; --resume goes on from {wanted.output['checkpoint']}")
            raise typer.Exit(cli.INTERRUPTED) from None
        if not quiet:
            cli._console().print("", run, sep="\n")
        cli._say_saved(list(wanted.output.values()), quiet)
    if run.dataset.attrs["stopped_at"] >= 0:
        raise typer.Exit(NOT_FINITE)


def experiment_command(
    name: Annotated[str | None, typer.Argument(help="Which; without one, all are named.", show_default=False)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", show_default=False, help="An option of the experiment; as often as needed."
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", metavar="", help="The published data and larger sizes, for a GPU; needs --set folder=FOLDER."
        ),
    ] = False,
    options: Annotated[bool, typer.Option("--options", metavar="", help="Say what can be --set, and stop.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.nc",
            readable=False,
            show_default=False,
            help="Save the numbers (netCDF).",
            rich_help_panel=_FILES,
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|pdf", readable=False, show_default=False, help="Save the figure.", rich_help_panel=_FILES
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", metavar="", help="No progress bar, only what it shows.", rich_help_panel=_FILES),
    ] = False,
) -> None:
    """Run one of the experiments."""
    from . import cli

    with cli._one_line_errors(), _with_torch():
        from .torch.data import needs_folder
        from .torch.experiments import EXPERIMENTS

        if name is None:
            width = max(map(len, EXPERIMENTS))
            _say("\n".join(f"{key:{width}}  {experiment.help}" for key, experiment in EXPERIMENTS.items()))
            return
        experiment = EXPERIMENTS[_checks.choice("the experiment", name, EXPERIMENTS)]
        if options:
            _say(_options_table(experiment))
            return
        chosen = {**(experiment.paper if paper else {}), **_settings(settings or [], experiment)}
        if chosen.get("folder") is None and needs_folder(chosen.get("data", "")):
            raise ValueError(f"{chosen['data']} lies in a folder of files: say which by --set folder=FOLDER")
        output_file, figure_file = cli._checked_files(output, figure)
        if not quiet:
            said = ", ".join(f"{key} = {value}" for key, value in (experiment.defaults | chosen).items())
            _say(f"{name}: {experiment.help}\n{said}\n")
        dataset = experiment.run(**chosen, progress=False if quiet else None)
        _say(experiment.verdict(dataset))
        if output_file:
            cli._save(output_file, dataset)
        if figure_file:
            drawn = experiment.figure(dataset)
            with _saving.whole_file(figure_file) as draft:
                drawn.savefig(draft, dpi=200)
        cli._say_saved([output_file, figure_file], quiet)


def _settings(given: list[str], experiment: Experiment) -> dict[str, Any]:
    """OPTION=VALUE as arguments: numbers, lists and True, False, None as Python writes them, all else as text."""
    chosen = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set must be OPTION=VALUE, got {text!r}")
        _checks.choice("the option of --set", key, experiment.defaults)
        chosen[key] = _value(value)
    return chosen


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _options_table(experiment: Experiment) -> str:
    paper: Mapping[str, Any] = experiment.paper
    width = max(map(len, experiment.defaults))
    lines = [
        f"{key:{width}}  {value!r}" + (f"  (--paper: {paper[key]!r})" if key in paper else "")
        for key, value in experiment.defaults.items()
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _with_torch() -> Iterator[None]:
    """Wrong types and packages that are missing as errors of usage, in one line."""
    try:
        yield
    except (ImportError, TypeError) as error:
        raise ValueError(str(error)) from None


def _checkpoint_time(files: Mapping[str, Path]) -> int | None:
    """When the checkpoint was last written; None if there is none."""
    file = files.get("checkpoint")
    return file.stat().st_mtime_ns if file is not None and file.exists() else None


def _say(text: str) -> None:
    from . import cli

    cli._console().print(text, soft_wrap=True, markup=False)


def _say_nothing(text: str) -> None:
    pass
