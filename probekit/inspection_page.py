"""An inspection as a page that opens without a network."""

from .errors import ProbekitError
from .inspection import Inspection
from .report import Report

#: Attention weights that a browser still opens, at about 20 bytes each.
LARGEST = 2_000_000


def inspection_page(found: Inspection, title: str) -> Report:
    """A self-contained page: predictions, attention entropy, and every pattern that was kept.

    Raises:
        ProbekitError: there are more attention weights than a browser opens.
    """
    size = sum(pattern.values.numel() for pattern in found.patterns)
    if size > LARGEST:
        raise ProbekitError(
            f"{size} attention weights are too many for a page, which holds {LARGEST}; choose "
            "layers, such as --layer 0, or shorten the inputs"
        )
    report = Report(title).table(found.to_frame())
    report.text(f"Attention entropy, {found.vdi.units}. Uniform: {found.vdi.null_name}.")
    report.table(found.heads().reset_index())
    for pattern in found.patterns:
        caption = f"input {pattern.input}, {pattern.site}"
        report.attention(pattern.values, pattern.tokens, caption=caption)
    return report
