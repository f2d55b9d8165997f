"""From what a diagnosis measured to what it means, in plain sentences.

The squared length S_l of an input's gradient by layer l grows, layer by layer backwards, by chi_l = S_l / S_(l+1).
The layers are cut into stretches of nearly constant log chi; each is ordered (gradients shrink on their way back), at
the edge of chaos, or chaotic (they grow).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.signal import savgol_filter

from ..ensemble import Ensemble
from ..meanfield import propagate
from ..simulation import spans
from ._graph import Layer

__all__ = [
    "LARGEST_RATIO",
    "SMALLEST_RATIO",
    "STEP_TOLERANCE",
    "TOTAL_TOLERANCE",
    "Stretch",
    "counted",
    "findings",
    "gradient_profile",
    "phase_of",
    "stretches",
    "untrainable",
]

TOTAL_TOLERANCE = 10.0
"""A stretch is at the edge of chaos if squared gradients change by less than this factor over all of it: it is shorter
than log 10 = 2.3 of the depths 1 / |log chi| over which they change by e, of which 6 train (Schoenholz et al., 2017);
"""

STEP_TOLERANCE = 2.0
"""and by less than this factor a layer, so that few layers are held to it too."""

SMALLEST_RATIO, LARGEST_RATIO = 1e-3, 1e3
"""What squared gradients of any layer over those of the last one may be in a model that trains."""

_LEAST_STEPS = 4  # of a stretch, where there are so many
_CRITICAL = 0.025  # factors of the weights by which they may be off
_AIM = 5.0  # factor of squared gradients over a stretch that advice may leave
_STRAY = 0.1  # share by which q of one network of some hundred nodes differs from theory's
_LARGEST_FACTOR = 32.0  # of the weights that is looked for
_HOMOGENEOUS = ("linear", "relu", "abs", "leaky_relu(")  # names of functions of which phi(2 x) = 2 phi(x)
_SMALLEST_NOISE = 0.03  # of log chi: what differs by less is not told apart
_SMALLEST_DRIFT = 0.05  # of log chi, between other stretches: less is none
_SKEWED = 10.0  # factor between the gradients of two classes that is worth a sentence
_SIGNAL = 1e4  # factor that the signal's mean square may change by without a sentence
_DEEP = 100.0  # gamma from which on there is "deep" prejudice: inputs correlated to 99 %

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Stretch:
    """Consecutive layers in one phase."""

    first: int
    """Number of its first layer."""
    last: int
    """Number of its last layer."""
    phase: str
    """ordered, edge of chaos or chaotic."""
    chi: float
    """Factor by which squared gradients change from each layer to the one before it; nan where they vanished."""
    total: float
    """The same over the whole stretch: what is left at its first layer of what its last one had."""


def gradient_profile(dataset: xr.Dataset) -> FloatArray:
    """Logarithm of the squared gradients' length by layer, such that neighbours can be compared.

    In a chain of layers it is log S_l. Where layers stand side by side (query, key and value) or on branches, they
    share the gradient, each kind in its own proportion. So of layers whose names differ only in the numbers of their
    blocks, and which are spread over half of the model and more, a linear fit log S_l = offset(kind) + slope l gives
    the offsets, and these are taken out; what is left is smoothed over two blocks, by straight lines, and the few
    other layers are nan. Where layers that can be compared are less than half of all, it is log S_l again.

    -inf stands for vanished gradients, inf for those that overflowed, nan where there is no path.
    """
    with np.errstate(divide="ignore"):
        profile: FloatArray = np.log(dataset["gradient"].values * dataset["units"].values)
    there = np.flatnonzero(np.isfinite(profile))
    if dataset.attrs["chain"] or not len(there):
        return profile
    kinds = np.array([_kind(str(name)) for name in dataset["name"].values])
    spread = [kind for kind in dict.fromkeys(kinds[there]) if 2 * np.ptp(there[kinds[there] == kind]) >= np.ptp(there)]
    compared = there[np.isin(kinds[there], spread)]
    if 2 * len(compared) < len(there):
        return profile
    of_kind = (kinds[compared][:, None] == np.array(spread)).astype(np.float64)
    slope, *offsets = np.linalg.lstsq(np.column_stack([compared, of_kind]), profile[compared], rcond=None)[0]
    profile[np.setdiff1d(there, compared)] = np.nan
    profile[compared] += profile[compared[-1]] - slope * compared[-1] - of_kind @ np.array(offsets)
    window = min(2 * len(spread) + 1, len(compared) - 1 + len(compared) % 2)
    if window > 1:
        profile[compared] = savgol_filter(profile[compared], window, 1)
    return profile


def stretches(dataset: xr.Dataset) -> tuple[Stretch, ...]:
    """The phases of the layers, from the first to the last; empty where no two layers have gradients.

    log chi is cut into pieces of constant mean (least squares with a penalty for every piece, by dynamic programming),
    and neighbours in the same phase are put together. Layers that no gradient arrives at are ordered, those where it
    overflows are chaotic.
    """
    profile, layers = gradient_profile(dataset), dataset["layer"].values
    there = np.flatnonzero(np.isfinite(profile))
    found: list[Stretch] = []
    if len(there) > 1:
        steps = -np.diff(profile[there]) / np.diff(there)
        least = _LEAST_STEPS if dataset.attrs["chain"] else max(_LEAST_STEPS, len(there) // 5)
        found = [_stretch(profile[there], layers[there], begin, end) for begin, end in _pieces(steps, least)]
    lost = np.flatnonzero(np.isinf(profile[: there[0]])) if len(there) and np.isinf(profile[0]) else there[:0]
    if len(lost) and dataset["sigma_w2"].values[there[0]] != 0.0:  # weights of zero stop what is in no phase
        first = int(layers[lost[0]])
        phase, total = ("ordered", 0.0) if profile[lost[-1]] < 0.0 else ("chaotic", math.inf)
        if found and found[0].phase == phase:
            found[0] = replace(found[0], first=first, total=total)
        else:
            found.insert(0, Stretch(first, int(layers[there[0]]), phase, math.nan, total))
    return tuple(found)


def phase_of(parts: Sequence[Stretch]) -> str:
    """One word for all: that of the stretches off the edge of chaos, `mixed` if they differ, `unknown` without any.

    It fits the whole: where all stretches together change squared gradients no more than the edge of chaos does, those
    of one phase leave the model there, and where they change them the other way, it is mixed.
    """
    phases = {part.phase for part in parts} - {"edge of chaos"}
    if not parts:
        return "unknown"
    if len(phases) > 1:
        return "mixed"
    total = math.prod(part.total for part in parts)
    with np.errstate(divide="ignore"):
        critical = _is_critical(float(np.log(total)), parts[-1].last - parts[0].first)
    if not phases or critical:
        return "edge of chaos"
    (phase,) = phases
    return phase if (total > 1.0) == (phase == "chaotic") else "mixed"


def findings(dataset: xr.Dataset, notes: Sequence[str] = (), layers: Sequence[Layer] = ()) -> tuple[str, ...]:
    """All that is worth saying, the phases first; `notes` are added at the end, `layers` make advice surer."""
    return (
        *_phases(dataset, layers),
        *_broken_gradients(dataset),
        *_guesses(dataset),
        *_prejudice(dataset),
        *_signal(dataset),
        *_digits(dataset),
        *_skewed_classes(dataset),
        *notes,
    )


# ---- Stretches -------------------------------------------------------------------------------------------------------


def _kind(name: str) -> str:
    """A layer's place in its block: blocks.*.fc1 of blocks.7.fc1 (2)."""
    block, dot, own = name.partition(" (")[0].rpartition(".")
    return re.sub(r"\d+", "*", block) + dot + own


def _pieces(steps: FloatArray, least: int) -> list[tuple[int, int]]:
    """(begin, end) of runs of steps in the same phase."""
    cuts = _segments(steps, least)
    while True:
        pieces = list(pairwise(cuts))
        phases = [_phase(steps[begin:end]) for begin, end in pieces]
        same = [i for i in range(1, len(pieces)) if phases[i] == phases[i - 1]]
        if same:
            cuts = [cut for i, cut in enumerate(cuts) if i not in same]
            continue
        small = [i for i, (begin, end) in enumerate(pieces) if _is_small(steps, begin, end)]
        if not small or len(pieces) == 1:
            return pieces
        del cuts[_nearer_end(steps, pieces, small[0])]


def _is_small(steps: FloatArray, begin: int, end: int) -> bool:
    """Whether a piece is no stretch of its own: at the edge of chaos, but for a short while or on the whole only."""
    piece, short = steps[begin:end], end - begin < max(_LEAST_STEPS, 0.1 * len(steps))
    return _phase(piece) == "edge of chaos" and (short or _drifts(piece))


def _nearer_end(steps: FloatArray, pieces: list[tuple[int, int]], at: int) -> int:
    """The index of the cut between a piece and the neighbour whose steps are more like its own."""
    means = [float(steps[begin:end].mean()) for begin, end in pieces]
    if at == 0 or at == len(pieces) - 1:
        return 1 if at == 0 else at
    return at if abs(means[at - 1] - means[at]) < abs(means[at + 1] - means[at]) else at + 1


def _segments(steps: FloatArray, least: int) -> list[int]:
    """Where to cut into pieces of constant mean, of at least so many steps, with both ends."""
    n = len(steps)
    if n < 2 * least:
        return [0, n]
    noise = max(float(np.median(np.abs(np.diff(steps)))) / 0.954, _SMALLEST_NOISE)  # of normal numbers: their deviation
    penalty = 3.0 * noise**2 * math.log(n)
    sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (steps, steps**2))
    best, before = np.full(n + 1, np.inf), np.zeros(n + 1, dtype=np.int64)
    best[0] = -penalty
    for end in range(least, n + 1):
        begins = np.arange(0, end - least + 1)
        lengths = end - begins
        cost = squares[end] - squares[begins] - (sums[end] - sums[begins]) ** 2 / lengths
        costs = best[begins] + cost + penalty
        before[end] = begins[int(np.argmin(costs))]
        best[end] = costs.min()
    cuts = [n]
    while cuts[-1] > 0:
        cuts.append(int(before[cuts[-1]]))
    return cuts[::-1]


def _drifts(steps: FloatArray) -> bool:
    """Whether steps go one way, by more than a little and more than their noise."""
    error = float(steps.std(ddof=1)) / math.sqrt(len(steps)) if len(steps) >= _LEAST_STEPS else 0.0
    return abs(float(steps.mean())) > max(_SMALLEST_DRIFT, 2.0 * error)


def _is_critical(total: float, steps: int) -> bool:
    """Whether this change of log S over so many steps is that of the edge of chaos: the one rule for all phases."""
    return abs(total) < min(math.log(TOTAL_TOLERANCE), steps * math.log(STEP_TOLERANCE))


def _phase(steps: FloatArray) -> str:
    total = float(steps.sum())
    if _is_critical(total, len(steps)):
        return "edge of chaos"
    return "ordered" if total < 0.0 else "chaotic"


def _stretch(profile: FloatArray, layers: NDArray[np.int64], begin: int, end: int) -> Stretch:
    first, last = int(layers[begin]), int(layers[end])
    steps = -np.diff(profile[begin : end + 1])
    total = float(steps.sum())
    with np.errstate(over="ignore"):
        return Stretch(first, last, _phase(steps), float(np.exp(total / (last - first))), float(np.exp(total)))


# ---- Sentences -------------------------------------------------------------------------------------------------------


def counted(number: int, what: str) -> str:
    """`1 layer`, `51 layers`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def untrainable(dataset: xr.Dataset, low: float = SMALLEST_RATIO, high: float = LARGEST_RATIO) -> Iterator[str]:
    """What is wrong with the gradients of a model that does not train; nothing where they lie within the bounds."""
    profile = gradient_profile(dataset)
    there = np.flatnonzero(~np.isnan(profile))
    if not dataset.attrs["chain"] and len(there):  # branches that start at zero are no obstacle
        there = there[(profile[there] > -np.inf) | (there == there[0])]
    if not len(there):
        yield "no gradient reaches any layer"
        return
    if not np.isfinite(profile[there[-1]]):
        yield "the gradient of the last layer is zero or not finite"
        return
    with np.errstate(over="ignore"):
        ratios = np.exp(profile[there] - profile[there[-1]])
    layers = dataset["layer"].values[there]
    for at, bad, words in (
        (int(ratios.argmin()), ratios.min() < low, f"less than {low:g}"),
        (int(ratios.argmax()), ratios.max() > high, f"more than {high:g}"),
    ):
        if bad:
            where = f"squared gradients at layer {layers[at]}"
            yield f"{where} are {ratios[at]:.2g} of those at the last layer, {words}"


def _phases(dataset: xr.Dataset, layers: Sequence[Layer]) -> Iterator[str]:
    parts = stretches(dataset)
    trains = not any(untrainable(dataset))
    bounds = f", within what trains ({_short(SMALLEST_RATIO)} to {_short(LARGEST_RATIO)})"
    if not parts:
        yield "the phase is not known: no gradient could be compared between two layers"
    for part in parts:
        where = spans(np.arange(part.first, part.last + 1))
        off = part.phase != "edge of chaos"
        change = f"squared gradients {_change(dataset, part)}{bounds if off and trains else ''}"
        yield f"{where} are {_PHASE_WORDS[part.phase]}: {change}{_advice(dataset, part, layers)}"


_PHASE_WORDS = {"ordered": "ordered", "edge of chaos": "at the edge of chaos", "chaotic": "chaotic"}


def _change(dataset: xr.Dataset, part: Stretch) -> str:
    """How squared gradients change on their way back."""
    if math.isnan(part.chi):
        return "vanish below the smallest number" if part.phase == "ordered" else "overflow"
    step, total = f"{_short(part.chi, 3)} a layer", _short(part.total) if part.total else "none"
    total = "all" if total == "1" and dataset.attrs["chain"] else total
    if not dataset.attrs["chain"]:
        whole = f"{total} in all"
    elif part.total < 1.0 or total == "all":
        whole = f"{total} of them reach layer {part.first}"
    else:
        whole = f"{total} times as large at layer {part.first}"
    if part.phase == "edge of chaos":
        return f"are stable ({step}, {whole})"
    if math.isinf(part.total):
        return f"grow by {step} and overflow before layer {part.first}"
    return f"{'shrink' if part.phase == 'ordered' else 'grow'} by {step}, {whole}"


def _advice(dataset: xr.Dataset, part: Stretch, layers: Sequence[Layer]) -> str:
    """What to do about a stretch that is off the edge."""
    if part.phase == "edge of chaos":
        return ""
    at = dataset.sel(layer=slice(part.first + 1, part.last))  # whose weights make its chi
    sources = set(at["source"].values)
    branches = int(dataset.attrs["branches"])
    if "normalisation" in sources and not branches:
        return (
            "; layers are normalised, so the size of the weights changes little: use skip connections or fewer layers"
        )
    if not dataset.attrs["chain"]:
        if branches and part.phase == "chaotic" and "normalisation" not in sources:
            growth = part.chi ** (dataset.sizes["layer"] / branches) - 1.0  # of squared gradients, in each branch
            factor = (branches * growth) ** -0.5  # (1 + factor^2 growth)^branches is then e at most
            if factor < 1.0 - _CRITICAL:
                return f"; multiply the last weights of the {branches} branches by {_short(factor)}, or use init_"
        return "; init_ says what can be done"
    expected = _theory(dataset, part, layers)
    factor = _factor(at, part, expected)
    if abs(factor - 1.0) < _CRITICAL:
        with np.errstate(divide="ignore"):
            total = float(np.log(part.total))
        explained = expected is not None and abs(total - expected(1.0)) < abs(expected(1.0))
        why = "theory expects as much at this depth" if explained else "at this width that is chance"
        return f"; the weights are at the edge of chaos of their activation: {why}"
    if not math.isfinite(factor) or (factor > 1.0) != (part.phase == "ordered"):
        return "; initialise it with " + ("init_" if expected is None else "init_(model, inputs=...)")
    return f"; multiply the weights by {_short(factor, 3)}"


def _factor(at: xr.Dataset, part: Stretch, expected: Callable[..., float] | None) -> float:
    """What to multiply the weights of a stretch by; nan where nothing is known to help.

    To the edge of chaos, unless theory expects that this takes more layers than there are; then so that theory expects
    gradients as long at the first layer as at the last. But no factor helps unless gradients are expected to stay
    trainable where q is not quite what theory says: in deep chains of SiLU or GELU chi rises with q, and deviations
    of q grow. Without theory, what the measured chi asks for, if phi does not change with the size of the signal.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = float(np.sqrt(np.mean(at["sigma_w2_edge"].values) / np.mean(at["sigma_w2"].values)))
    if expected is not None and not abs(factor - 1.0) < _CRITICAL:
        there = expected(factor) if math.isfinite(factor) else math.nan
        if not abs(there) < math.log(_AIM):
            factor = _root(expected, part.phase == "ordered")
        strays = [expected(factor, 1.0 + sign * _STRAY) for sign in (-1, 1)] if math.isfinite(factor) else []
        return factor if all(abs(each) < math.log(LARGEST_RATIO) for each in strays) else math.nan
    scalable = all(str(name).startswith(_HOMOGENEOUS) for name in at["activation"].values)
    if math.isfinite(factor) or at["pooled"].values.any() or not scalable or np.isnan(at["sigma_w2"].values).any():
        return factor
    return part.chi**-0.5


def _root(expected: Callable[[float], float], up: bool) -> float:
    """The factor, above 1 or below, at which squared gradients are expected to stay as they are; nan without one."""
    begin, step = 0.0, 0.05 if up else -0.05
    while abs(begin + step) < math.log(_LARGEST_FACTOR):
        one, other = expected(math.exp(begin)), expected(math.exp(begin + step))
        if not (math.isfinite(one) and math.isfinite(other)):
            break
        if one * other <= 0.0:
            found = brentq(lambda power: expected(math.exp(power)), begin, begin + step, xtol=1e-3)
            return math.exp(float(found))
        begin, step = begin + step, 1.5 * step
    return math.nan


def _theory(dataset: xr.Dataset, part: Stretch, layers: Sequence[Layer]) -> Callable[..., float] | None:
    """Log of what theory makes of squared gradients over a stretch; None if it cannot.

    A function of the factor of its weights and, optionally, of another one by which q is off at its start.
    """
    before = [layer.before for layer in layers[part.first : part.last]]
    kinds = {(each.activation, each.pool) for each in before}
    if len(kinds) != 1 or not all(each.plain for each in before):
        return None
    ((activation, pool),) = kinds
    assert activation is not None
    at, first = dataset.sel(layer=slice(part.first + 1, part.last)), dataset.sel(layer=part.first)
    sigma_w2, sigma_b2 = float(at["sigma_w2"].mean(skipna=False)), float(at["sigma_b2"].mean())
    q0 = float(first["q"] - first["sigma_b2"]) / sigma_w2 if sigma_w2 > 0.0 else math.nan
    if not (math.isfinite(q0) and q0 > 0.0):
        return None

    def total(factor: float, stray: float = 1.0) -> float:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # where it overflows, the total is nan
            try:
                ens = Ensemble(activation, factor**2 * sigma_w2, sigma_b2, pool=pool)
                return float(np.log(propagate(ens, part.last - part.first, q0=stray * q0)["chi"].values).sum())
            except ValueError:  # a function that theory does not take, such as one that grows too fast
                return math.nan

    return None if math.isnan(total(1.0)) else total


def _broken_gradients(dataset: xr.Dataset) -> Iterator[str]:
    gradient, layers = dataset["gradient"].values, dataset["layer"].values
    none = layers[np.isnan(gradient)]
    if len(none):
        them = "it" if len(none) == 1 else "them"
        yield f"no gradient reaches {spans(none)}: the output does not depend on {them}, or is cut off by detach"
    zero = layers[gradient == 0.0]
    if len(zero):
        around = not dataset.attrs["chain"] and zero[0] != layers[0]
        yield f"gradients are exactly zero at {spans(zero)}" + (": branches that start at zero" if around else "")
    closed = layers[dataset["sigma_w2"].values == 0.0]
    if len(closed):
        yield f"the weights of {spans(closed)} are all zero: before the first step nothing passes"
    infinite = layers[np.isinf(gradient)]
    if len(infinite):
        yield f"gradients overflow at {spans(infinite)}"


def _guesses(dataset: xr.Dataset) -> Iterator[str]:
    if "class_fraction" not in dataset:
        return
    fraction, inputs = dataset["class_fraction"].values, dataset.attrs["inputs"]
    features = len(fraction) > inputs and dataset.attrs.get("loss") == "readout"  # rather than classes
    if features or not np.isfinite(fraction).all():
        return
    fair = 1.0 / len(fraction)
    top = int(np.argmax(fraction))
    share = f"{_percent(fraction[top])} of the inputs go to class {top}"
    fair_share = f"a fair share is {_percent(fair)}"
    if fraction[top] > fair + 4.0 * math.sqrt(fair * (1.0 - fair) / inputs):
        never = int(np.sum(fraction == 0.0))
        gets = "gets" if never == 1 else "get"
        rest = f"; {never} of the {len(fraction)} classes {gets} none" if never and never < inputs else ""
        yield f"the untrained guess is biased: {share} ({fair_share}){rest}"
    else:
        yield f"the untrained guess is fair, as far as {inputs} inputs tell: at most {share} ({fair_share})"


def _prejudice(dataset: xr.Dataset) -> Iterator[str]:
    gamma = dataset["gamma"].values
    used = ~np.isnan(dataset["gradient"].values)  # what the outputs depend on
    known = np.flatnonzero(np.isfinite(gamma) & (used | ~used.any()))
    if not len(known):
        return
    layer, value = int(dataset["layer"].values[known[-1]]), float(gamma[known[-1]])
    apart = float(dataset["one_minus_c"].values[known[-1]])
    alike = f"gamma is {_short(value)} at layer {layer}"
    correlated = f"two inputs correlate to {_correlation(apart)}"
    if value >= _DEEP:
        chaos = any(part.phase == "chaotic" for part in stretches(dataset))
        name = "chaotic deep prejudice" if chaos else "deep prejudice"
        yield f"{alike}, {name}: {correlated}, and the network hardly tells them apart"
    elif value > 1.0:
        yield f"{alike}, prejudice: {correlated}"
    else:
        yield f"{alike}, neutral: {correlated}"


def _signal(dataset: xr.Dataset) -> Iterator[str]:
    q, layers = dataset["q"].values, dataset["layer"].values
    broken = layers[~np.isfinite(q)]
    if len(broken):
        yield f"outputs are not finite at {spans(broken)}"
    there = np.flatnonzero(np.isfinite(q))
    if len(there) < 2:
        return
    first, last = there[0], there[-1]
    dead = layers[q == 0.0]
    if len(dead):
        yield f"the signal is exactly zero at {spans(dead)}"
    if q[first] > 0.0 and not 1.0 / _SIGNAL < q[last] / q[first] < _SIGNAL:
        verb = "grows" if q[last] > q[first] else "falls"
        ends = f"{_short(q[first])} at layer {layers[first]} to {_short(q[last])} at layer {layers[last]}"
        yield f"the signal {verb}: its mean square goes from {ends}"


def _digits(dataset: xr.Dataset) -> Iterator[str]:
    lost = dataset["layer"].values[dataset["resolved"].values == 0]
    if len(lost):
        dtype, limit = dataset.attrs["dtype"], _short(float(dataset["gamma_limit"].min()), 1)
        yield (
            f"inputs cannot be told apart at {spans(lost)} in {dtype}, whose digits end at gamma = {limit}: "
            "gamma, sigma_y2 and 1 - c are nan there"
        )


def _skewed_classes(dataset: xr.Dataset) -> Iterator[str]:
    if "gradient_class" not in dataset:
        return
    by_class = dataset["gradient_class"].values[0]
    known = np.flatnonzero(np.isfinite(by_class))
    if len(known) < 2:
        return
    least, most = known[np.argmin(by_class[known])], known[np.argmax(by_class[known])]
    others = float(np.median(np.delete(by_class[known], np.flatnonzero(known == least))))
    if by_class[least] * _SKEWED < others:
        size = "vanish" if by_class[least] == 0.0 else f"are {_short(by_class[least] / others)} of those of the others"
        yield f"squared gradients of class {least} {size} at layer {int(dataset['layer'].values[0])}"
    elif by_class[most] > _SKEWED * float(np.median(np.delete(by_class[known], np.flatnonzero(known == most)))):
        rest = float(np.median(np.delete(by_class[known], np.flatnonzero(known == most))))
        size = f"{_short(by_class[most] / rest)} times those of the others" if rest else "are the only ones"
        yield f"squared gradients of class {most} are {size} at layer {int(dataset['layer'].values[0])}"


def _short(value: float, digits: int = 2) -> str:
    """`0.82`, `3e-9`, `1500`."""
    if 1e2 <= abs(value) < 1e4:
        return f"{value:.0f}"
    text = f"{value:.{digits}g}"
    return re.sub(r"e([+-])0?(\d)", lambda m: f"e{'-' if m[1] == '-' else ''}{m[2]}", text)


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %" if share < 0.1 else f"{100.0 * share:.0f} %"


def _correlation(apart: float) -> str:
    """c from 1 - c, with its digits next to 1."""
    return f"1 - {_short(apart)}" if 0.0 < apart < 0.01 else f"{1.0 - apart:.2f}"
