"""Where cards, recipes and results lie: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path
from typing import Literal

from probekit.errors import ProbekitError

_PACKAGE = Path(__file__).resolve().parent


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from, or None when it is installed."""
    root = _PACKAGE.parent
    # Not the data folder itself: site-packages may hold somebody else's `models`.
    return root if (root / "pyproject.toml").is_file() else None


def data_dir(kind: Literal["models", "recipes", "results"]) -> Path:
    """Return the folder of the cards, of the recipes, or of what they last found.

    Raises:
        ProbekitError: the folder is missing, so the installation is incomplete.
    """
    folder = (checkout() or _PACKAGE / "_shipped") / kind
    if not folder.is_dir():
        raise ProbekitError(f"no {kind} at {folder}; the installation is incomplete: reinstall it")
    return folder
