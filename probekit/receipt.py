"""The receipt of an attachment: what fired, and what each edit really changed."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class ReceiptRow:
    """One item at one site.

    ``change`` is the largest L2 norm of (edited - original) seen; it is measured at firings 1, 2,
    4, 8, ... only, so that long runs pay nothing for it. None: it was never edited (an observer).
    """

    item: str
    site: str
    hook: str
    fired: int
    edit: str
    change: float | None


@dataclass(frozen=True)
class Receipt:
    """A row per item and site, and, from :func:`probekit.verify`, the change of the output.

    ``output_change`` is the largest absolute difference in any output tensor between the run
    with the interventions and the run without, both on the same attention path; None where it
    was not measured.
    """

    rows: tuple[ReceiptRow, ...]
    output_change: float | None = None

    @property
    def silent(self) -> bool:
        """Whether some edit was non-zero and yet no output moved: the edit did nothing."""
        edited = any(row.change for row in self.rows)
        return self.output_change == 0 and edited

    def to_frame(self) -> pd.DataFrame:
        """Columns ``item, site, hook, fired, edit, change``."""
        return pd.DataFrame([vars(row) for row in self.rows])

    def __str__(self) -> str:
        table = self.to_frame().to_string(index=False)
        if self.output_change is None:
            return table
        return f"{table}\nlargest change of the output: {self.output_change:.6g}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tail = "" if self.output_change is None else f"output change: {self.output_change:.6g}"
        return self.to_frame().to_html(index=False) + tail
