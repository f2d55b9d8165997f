"""What results that print themselves have in common: a rich table on a terminal and in a notebook, and plain text."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from . import _checks

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Report"]


class Report:
    """A result with a table, which `__rich_console__` of its class draws."""

    __slots__ = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        raise NotImplementedError

    def summary(self, width: int = 120) -> str:
        """What `print` shows, as text of a certain width.

        Parameters
        ----------
        width : int, optional
            Columns that the text may take, at least 72.

        Returns
        -------
        str

        Raises
        ------
        ValueError, TypeError
            If `width` is not an integer of at least 72.

        Examples
        --------
        >>> import igbfast as igb
        >>> ens = igb.Ensemble("tanh", sigma_w2=1.76, sigma_b2=0.05)
        >>> text = igb.validate(ens, width=300, depth=5, networks=16, inputs=20).summary(width=100)
        >>> "Passed" in text
        True
        """
        from rich.console import Console

        columns = _checks.integer("width", width, 72)
        text = io.StringIO()
        Console(file=text, width=columns, color_system=None, force_terminal=False, highlight=False).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), record=True, width=120, force_jupyter=False)
        console.print(self)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
