"""The command line: igbfast validate | phase | simulate | train | experiment | info, one verb per question.

Exit codes: 0 done (validate: passed), 1 validate did not pass or train met a loss that is not finite, 2 bad usage,
3 a file could not be saved, 130 Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from typer.core import TyperGroup

from . import __version__, _checks, _saving, _tables, cli_training, config, plot, simulation, validation
from ._formulas import FORMULAS
from .ensemble import WEIGHTS, Ensemble
from .fixed_points import fixed_point
from .gpu._device import DeviceError
from .phases import phase_diagram
from .pools import AvgPool, MaxPool, MinPool, Pool
from .validation import Validation

__all__ = ["app", "main"]

NOT_PASSED, BAD_USAGE, NOT_SAVED, INTERRUPTED = 1, 2, 3, 130

# The two networks that `igbfast validate` runs when none is named: tanh at its edge of chaos, critical ReLU.
FLAGSHIPS = (Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05), Ensemble("relu", sigma_w2=2.0, sigma_b2=0.0))


_VALIDATE_HELP = (
    "Does a finite network follow the mean-field theory, layer by layer?\n\n"
    "Simulates independent random networks and compares sigma_mu2, sigma_y2, gamma and c of every layer with theory. "
    "They pass if all lie within 5 standard errors, after the expected effect of the finite width. "
    "Exit code: 0 passed, 1 not passed, 2 bad usage, 3 a file could not be saved."
)
_PHASE_HELP = (
    "In which phase are infinitely wide networks, and where are the lines between the phases?\n\n"
    "Over ranges of sigma_w2 and sigma_b2: the edge of chaos, the neutrality line, and with --figure the whole "
    "diagram. With one number for each: where such a network ends as its depth grows, and how it gets there."
)
_SIMULATE_HELP = (
    "What do random networks of finite width do?\n\n"
    "Measures every layer and prints sigma_mu2, sigma_y2, gamma and c of some of them; --output keeps them all, "
    "network by network."
)


def _examples(*lines: str) -> str:
    """The end of a help page; blank lines between, because typer may join lines."""
    return "\n\n".join(["Examples:", *lines])


class _Group(TyperGroup):
    """Reports wrong options as the commands report wrong values: in one red line, without a traceback."""

    def main(self, *args: Any, **extra: Any) -> Any:
        standalone = extra.pop("standalone_mode", True)
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except BrokenPipeError:  # the reader of a pipe has gone, as `| head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        except Exception as error:
            explain = getattr(error, "format_message", None)  # click's and typer's errors of usage have one
            if explain is None:
                raise
            message = str(explain()).rstrip(".")
            if message:
                _complain(f"{message}; see igbfast --help")
            code = BAD_USAGE if message else 0  # no message: the help has been shown, because there were no arguments
        if not standalone:
            return code
        sys.exit(code)


app = typer.Typer(
    cls=_Group,
    name="igbfast",
    help="How does a randomly initialised network behave, at any width? Theory, exact simulation, and one against the "
    "other, in seconds.",
    epilog=_examples(
        "igbfast validate",
        "igbfast phase tanh --figure f.png",
        "igbfast simulate tanh --sigma-w2 1.76",
        "igbfast train --example > run.toml",
        "igbfast experiment",
        "igbfast info",
    ),
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_RUN, _FILES = "Size of the run", "Files and output"

_NAMES = ", ".join(FORMULAS)
_ACTIVATION_HELP = (
    f"By name: {_NAMES}. A parameter is written along, as in leaky_relu(0.2), and so are expressions of x, as in "
    "'2 * tanh(x / 2) + 0.1'."
)

PoolOption = Annotated[
    str | None,
    typer.Option(
        "--pool", metavar="max:K|min:K|avg:K", show_default=False, help="Pool over K nodes after the activation."
    ),
]
Residual = Annotated[
    float | None,
    typer.Option(show_default=False, help="Residual network: the branch ratio a of y' = y + sqrt(a) (W phi + b)."),
]
LayerNorm = Annotated[bool, typer.Option("--layernorm", metavar="", help="LayerNorm before the activation.")]
SigmaB2 = Annotated[float, typer.Option(help="Variance of the biases, zero or positive.")]
Width = Annotated[int, typer.Option(help="Nodes in each layer.", rich_help_panel=_RUN)]
Depth = Annotated[int, typer.Option(help="Number of layers.", rich_help_panel=_RUN)]
Inputs = Annotated[int, typer.Option(help="Number of independent Gaussian inputs.", rich_help_panel=_RUN)]
Seed = Annotated[int, typer.Option(help="Fixes all the randomness: same seed, same result.", rich_help_panel=_RUN)]
Method = Annotated[
    str,
    typer.Option(
        metavar="auto|direct|gram",
        help="direct draws every weight, gram the exact law of each layer given the one before; "
        "auto takes the cheaper.",
        rich_help_panel=_RUN,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="float32|float64",
        help="Arithmetic of the layers; float64 for deep, strongly ordered networks.",
        rich_help_panel=_RUN,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="cpu|cuda|cuda:N|cuda:all",
        help="Run on the CPU or on GPUs, which share the networks; several by their numbers, as in cuda:0,cuda:2.",
        rich_help_panel=_RUN,
    ),
]
Products = Annotated[
    str,
    typer.Option(
        metavar="full|tf32|bfloat16",
        help="How GPUs multiply large float32 matrices: tensor cores are faster and round to 11 or 8 bits.",
        rich_help_panel=_RUN,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="At most so many threads; the result does not depend on it.", show_default=False, rich_help_panel=_RUN
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.nc", readable=False, show_default=False, help="Save the numbers (netCDF).", rich_help_panel=_FILES
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="No table and no progress bar.", rich_help_panel=_FILES)
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"igbfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_show_version, is_eager=True, help="Say the version and stop."),
    ] = False,
) -> None:
    pass


@app.command(
    "validate",
    help=_VALIDATE_HELP,
    epilog=_examples(
        "igbfast validate",
        "igbfast validate --figure flagships.pdf --output flagships.nc",
        "igbfast validate erf --sigma-w2 1.5 --sigma-b2 0.1 --width 2000 --depth 30",
        'igbfast validate "leaky_relu(0.2)" --sigma-w2 1.92',
    ),
)
def validate_command(
    activation: Annotated[
        str | None,
        typer.Argument(
            help=f"{_ACTIVATION_HELP} Without one: the two flagships, tanh at its edge of "
            "chaos (sigma_w2 1.76, sigma_b2 0.05) and critical relu (sigma_w2 2).",
            show_default=False,
        ),
    ] = None,
    sigma_w2: Annotated[
        float | None,
        typer.Option(
            help="Variance of the weights times the width, positive; needed with an activation.", show_default=False
        ),
    ] = None,
    sigma_b2: Annotated[
        float | None, typer.Option(help="Variance of the biases, zero or positive; 0 if not given.", show_default=False)
    ] = None,
    width: Width = 10_000,
    depth: Depth = 100,
    networks: Annotated[
        int, typer.Option(help="Independent networks; a verdict takes 16.", rich_help_panel=_RUN)
    ] = validation.VERDICT_NETWORKS,
    inputs: Inputs = 100,
    seed: Seed = 0,
    method: Method = "auto",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    products: Products = "full",
    threads: Threads = None,
    output: Output = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|pdf",
            readable=False,
            show_default=False,
            help="Save the figure, theory and simulation by layer.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", metavar="", help="No table and no progress bar, only the verdict.", rich_help_panel=_FILES
        ),
    ] = False,
) -> None:
    """Theory against simulation for one ensemble, or for the two flagships."""
    with _one_line_errors():
        ensembles = _chosen_ensembles(activation, sigma_w2, sigma_b2)
        output_file, figure_file = _checked_files(output, figure)
        _use_threads(threads)
        results = []
        for ens in ensembles:
            result = validation.validate(
                ens,
                width=width,
                depth=depth,
                networks=networks,
                inputs=inputs,
                seed=seed,
                method=method,
                dtype=dtype,
                device=_devices(device),
                products=products,
                progress=False if quiet else None,
            )
            _print_validation(result, quiet)
            results.append(result)
        if output_file:
            _save(output_file, combined(results))
        if figure_file:
            _save_figure(figure_file, results)
        _say_saved([output_file, figure_file], quiet)
    if not all(result.passed for result in results):
        raise typer.Exit(NOT_PASSED)


@app.command(
    "phase",
    help=_PHASE_HELP,
    epilog=_examples(
        "igbfast phase tanh --figure f.png",
        "igbfast phase tanh --sigma-w2 1.76 --sigma-b2 0.05",
        "igbfast phase relu --pool max:2 --sigma-w2 0.5:2:150 --sigma-b2 0:1:100 --heat xi_c --figure relu.pdf",
        "igbfast phase erf --sigma-w2 0.1:10:300:log --sigma-b2 0.001:1:200:log --output erf.nc",
    ),
)
def phase_command(
    activation: Annotated[str, typer.Argument(help=_ACTIVATION_HELP)],
    sigma_w2: Annotated[
        str, typer.Option(metavar="NUMBER|FROM:TO:COUNT", help="Variance of the weights times the width, or a range.")
    ] = "0.1:4:200",
    sigma_b2: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|FROM:TO:COUNT",
            help="Variance of the biases, or a range; FROM:TO:COUNT:log spreads a range over a logarithmic axis.",
        ),
    ] = "0:0.5:200",
    pool: PoolOption = None,
    residual: Residual = None,
    layernorm: LayerNorm = False,
    threads: Threads = None,
    output: Output = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|pdf",
            readable=False,
            show_default=False,
            help="Save the phase diagram as a figure.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    heat: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(plot.HEATS),
            show_default=False,
            help="Show this number in colours in the figure.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="No table.", rich_help_panel=_FILES)] = False,
) -> None:
    """The phase diagram of one activation, or one point of it."""
    with _one_line_errors():
        weights, biases = _numbers("--sigma-w2", sigma_w2), _numbers("--sigma-b2", sigma_b2)
        network: dict[str, Any] = {"pool": _pool(pool), "residual": residual, "layernorm": layernorm}
        first = Ensemble(activation, weights[0], biases[0], **network)  # which checks them
        _check_figure(figure, heat, weights, biases)
        output_file, figure_file = _checked_files(output, figure)
        _use_threads(threads)
        point = weights.size == biases.size == 1
        if point and not quiet:
            _console().print(*_tables.fixed_point_table(first, fixed_point(first)), sep="\n")
        if not point or output_file:
            diagram = phase_diagram(first.activation, weights, biases, **network)
            if not point and not quiet:
                _console().print(*_tables.phase_table(diagram), sep="\n")
            if output_file:
                _save(output_file, diagram)
            if figure_file:
                _save_diagram(figure_file, diagram, heat)
        _say_saved([output_file, figure_file], quiet)


@app.command(
    "simulate",
    help=_SIMULATE_HELP,
    epilog=_examples(
        "igbfast simulate tanh --sigma-w2 1.76 --sigma-b2 0.05",
        "igbfast simulate relu --sigma-w2 2 --width 1000000 --depth 20 --output relu.nc",
        "igbfast simulate tanh --sigma-w2 0.9 --sigma-b2 0.05 --dtype float64 --networks 16",
        "igbfast simulate tanh --sigma-w2 1.76 --sigma-b2 0.05 --networks 64 --device cuda --products tf32",
        "igbfast simulate gelu --sigma-w2 2 --pool max:2 --weights orthogonal --gradients cross_entropy --output g.nc",
    ),
)
def simulate_command(
    activation: Annotated[str, typer.Argument(help=_ACTIVATION_HELP)],
    sigma_w2: Annotated[float, typer.Option(help="Variance of the weights times the width, positive.")],
    sigma_b2: SigmaB2 = 0.0,
    pool: PoolOption = None,
    residual: Residual = None,
    layernorm: LayerNorm = False,
    weights: Annotated[
        str, typer.Option(metavar="|".join(WEIGHTS), help="Law of the weights; the last two by direct only.")
    ] = "gaussian",
    width: Width = 10_000,
    depth: Depth = 100,
    networks: Annotated[
        int,
        typer.Option(help="Independent networks; 16 or more for error bars that can be trusted.", rich_help_panel=_RUN),
    ] = 1,
    inputs: Inputs = 100,
    seed: Seed = 0,
    method: Method = "auto",
    dtype: Dtype = "float32",
    device: Device = "cpu",
    products: Products = "full",
    gradients: Annotated[
        str | None,
        typer.Option(
            metavar="readout|cross_entropy",
            show_default=False,
            help="Go backward too, from the output of one random node or from the cross-entropy on random labels.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    classes: Annotated[int, typer.Option(help="Outputs of the head.", rich_help_panel=_RUN)] = 10,
    threads: Threads = None,
    per_node: Annotated[
        bool,
        typer.Option(
            "--per-node",
            metavar="",
            help="Keep the centre and variance of every node, the class and gradient of every input.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    output: Output = None,
    quiet: Quiet = False,
) -> None:
    """Measure the layers of one ensemble."""
    with _one_line_errors():
        network: dict[str, Any] = {"pool": _pool(pool), "residual": residual, "layernorm": layernorm}
        ens = Ensemble(activation, sigma_w2, sigma_b2, weights=weights, **network)
        output_file, _ = _checked_files(output, None)
        _use_threads(threads)
        dataset = simulation.simulate(
            ens,
            width=width,
            depth=depth,
            inputs=inputs,
            networks=networks,
            seed=seed,
            method=method,
            dtype=dtype,
            device=_devices(device),
            products=products,
            per_node=per_node,
            gradients=gradients,
            classes=classes,
            progress=False if quiet else None,
        )
        if not quiet:
            _console().print(*_tables.simulation_table(dataset), sep="\n")
        if output_file:
            _save(output_file, dataset)
        _say_saved([output_file], quiet)


cli_training.register(app)


@app.command("info")
def info_command() -> None:
    """What was built and what was found: versions, instruction set, BLAS, threads, CUDA, driver and GPUs."""
    with _one_line_errors():
        config.show_config()


def combined(results: Sequence[Validation]) -> xr.Dataset:
    """The dataset of one validation, or those of several along a new dimension `ensemble`."""
    if len(results) == 1:
        return results[0].dataset
    datasets = [result.dataset for result in results]
    together: xr.Dataset = xr.concat(datasets, "ensemble", combine_attrs="drop_conflicts")
    differing = ("activation", "sigma_w2", "sigma_b2", "verdict")
    together = together.assign_coords({key: ("ensemble", [d.attrs[key] for d in datasets]) for key in differing})
    together.attrs = {key: value for key, value in together.attrs.items() if key not in differing}
    return together


def main() -> None:
    """Entry point of the `igbfast` command."""
    app()


def _chosen_ensembles(activation: str | None, sigma_w2: float | None, sigma_b2: float | None) -> Sequence[Ensemble]:
    if activation is not None:
        if sigma_w2 is None:
            raise ValueError(f"validate {activation} needs --sigma-w2, the variance of the weights times the width")
        return [Ensemble(activation, sigma_w2, 0.0 if sigma_b2 is None else sigma_b2)]
    if sigma_w2 is not None or sigma_b2 is not None:
        raise ValueError("--sigma-w2 and --sigma-b2 need an activation: igbfast validate ACTIVATION --sigma-w2 ...")
    return FLAGSHIPS


def _checked_files(output: Path | None, figure: Path | None) -> tuple[Path | None, Path | None]:
    """The paths to save to, found writable before the work begins."""
    try:
        if figure is not None:
            plot.require_matplotlib()
            figure = _saving.checked_target("--figure", figure, (".png", ".pdf"))
        if output is not None:
            output = _saving.checked_target("--output", output, (".nc",))
    except (OSError, ImportError) as error:
        raise ValueError(str(error)) from None
    return output, figure


def _numbers(option: str, text: str) -> NDArray[np.float64]:
    """One number, or those of a range FROM:TO:COUNT, evenly spread, or FROM:TO:COUNT:log, evenly in the logarithm."""
    wrong = ValueError(f"{option} must be a number or a range FROM:TO:COUNT such as 0.1:4:200, got {text!r}")
    parts = text.split(":")
    logarithmic = parts[3:] == ["log"]
    try:
        ends, counts = [float(part) for part in parts[:2]], [int(part) for part in parts[2:3]]
    except ValueError:
        raise wrong from None
    if not np.isfinite(ends).all() or (len(parts) not in (1, 3) and not logarithmic):
        raise wrong
    if not counts:
        return np.array(ends)
    low, high, count = ends[0], ends[1], counts[0]
    if not low < high or not 2 <= count <= _MOST_VALUES:
        raise ValueError(f"{option} must rise from FROM to TO in 2 to {_MOST_VALUES} values, got {text!r}")
    if logarithmic and low <= 0.0:
        raise ValueError(f"{option} must begin above zero on a logarithmic axis, got {text!r}")
    return np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)


_MOST_VALUES = 10_000
_POOLS: dict[str, type[Pool]] = {"max": MaxPool, "min": MinPool, "avg": AvgPool}


def _pool(text: str | None) -> Pool | None:
    if text is None:
        return None
    kind, _, size = text.partition(":")
    if kind not in _POOLS or not size.isdecimal():
        raise ValueError(f"--pool must be max:K, min:K or avg:K with a number K of nodes, such as max:2, got {text!r}")
    return _POOLS[kind](int(size))


def _check_figure(
    figure: Path | None, heat: str | None, weights: NDArray[np.float64], biases: NDArray[np.float64]
) -> None:
    if figure is not None and min(weights.size, biases.size) < 2:
        raise ValueError("--figure needs ranges of --sigma-w2 and --sigma-b2, such as 0.1:4:200")
    if heat is not None:
        _checks.choice("--heat", heat, plot.HEATS)
        if figure is None:
            raise ValueError("--heat needs --figure, the file for the figure")


def _devices(text: str) -> str | list[str]:
    """One device, or those between commas."""
    return text.split(",") if "," in text else text


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        config.set_num_threads(_checks.integer("threads", threads, 1, config.MAX_THREADS))


def _save(target: Path, dataset: xr.Dataset) -> None:
    validation.save_netcdf(dataset, target)


def _save_figure(target: Path, results: Sequence[Validation]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(dpi=200)
    plot.draw_validations(figure, results)
    with _saving.whole_file(target) as draft:
        figure.savefig(draft, dpi=200)


def _save_diagram(target: Path, diagram: xr.Dataset, heat: str | None) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=plot.DIAGRAM_SIZE, dpi=200, layout="constrained")
    plot.draw_phase_diagram(figure.subplots(), diagram, heat)
    with _saving.whole_file(target) as draft:
        figure.savefig(draft, dpi=200)


def _print_validation(result: Validation, quiet: bool) -> None:
    if quiet:
        _console().print(f"{result.ens!r}: {result.sentence}", soft_wrap=True)
    else:
        _console().print(result)
        _console().print()


def _say_saved(files: Sequence[Path | None], quiet: bool) -> None:
    for file in files:
        if file is not None and not quiet:
            _console().print(f"Saved {file}", soft_wrap=True)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors that a user can cause, as one red line and an exit code; warnings as one yellow line."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *_, **__: _say_on_stderr("Warning", str(message), "yellow")
        try:
            yield
        except KeyboardInterrupt:
            _complain("stopped by Ctrl-C, nothing was saved")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise
        except (ValueError, DeviceError) as error:
            _complain(str(error))
            raise typer.Exit(BAD_USAGE) from None
        except (OSError, MemoryError) as error:
            _complain(str(error) or "out of memory")
            raise typer.Exit(NOT_SAVED) from None


def _complain(message: str) -> None:
    _say_on_stderr("Error", message, "red")


def _say_on_stderr(kind: str, message: str, style: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{kind}: {message}", style=style, markup=False)


def _console() -> Console:
    """The terminal; a pipe or a file has no width, and gets one that the tables like."""
    wide_enough = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 104
    return Console(highlight=False, width=wide_enough)


if __name__ == "__main__":
    main()
