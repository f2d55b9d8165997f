"""Figures: theory as lines, simulation as points with error bars, in colours and dashes that everybody can tell apart.

Needs matplotlib, which is imported when a figure is drawn: `pip install 'igbfast[plot]'`.
"""

from __future__ import annotations

from ._figure import require_matplotlib
from ._plot_classes import class_fractions
from ._plot_distributions import distributions
from ._plot_gradients import gradients, gradients_by_class
from ._plot_layers import draw_validations, trajectories, validations
from ._plot_phases import DIAGRAM_SIZE, HEATS, draw_phase_diagram, phase_diagram
from ._plot_width import finite_width

__all__ = [
    "DIAGRAM_SIZE",
    "HEATS",
    "class_fractions",
    "distributions",
    "draw_phase_diagram",
    "draw_validations",
    "finite_width",
    "gradients",
    "gradients_by_class",
    "phase_diagram",
    "require_matplotlib",
    "trajectories",
    "validations",
]
