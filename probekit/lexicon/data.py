"""Where WordNet lies on this machine, and how it gets there.

NLTK reads its data from the folders of ``nltk.data.path`` alone (``~/nltk_data``, ``$NLTK_DATA``
...), unpacked or zipped. Princeton's files come by three routes: NLTK's download, Debian's packages
``wordnet-base`` and ``wordnet-sense-index``, or a folder. The last two may lack ``lexnames``, a
fixed table that is written here.

Source: WordNet 3.0, lexnames(5WN) and wndb(5WN).
"""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path

from ..errors import ProbekitError

DEBIAN = Path("/usr/share/wordnet")
SUFFIXES = {"a": "adj", "r": "adv", "n": "noun", "v": "verb"}
"""Files by part of speech, in the order of NLTK's ``all_synsets()``."""

FILES = (
    *(f"data.{suffix}" for suffix in SUFFIXES.values()),
    *(f"index.{suffix}" for suffix in SUFFIXES.values()),
    *(f"{suffix}.exc" for suffix in SUFFIXES.values()),
    "index.sense",
    "cntlist.rev",
)
"""What NLTK's reader opens, ``lexnames`` aside."""

LEXNAMES = (
    *("adj.all", "adj.pert", "adv.all"),
    *("noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute", "noun.body"),
    *("noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food"),
    *("noun.group", "noun.location", "noun.motive", "noun.object", "noun.person"),
    *("noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity"),
    *("noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time"),
    *("verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition"),
    *("verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather"),
    "adj.ppl",
)
"""The lexicographer files by number."""

ROUTES = (
    "`probekit data wordnet` where there is a network, `apt-get install wordnet-base "
    "wordnet-sense-index` and then `probekit data wordnet`, or `probekit data wordnet --folder F` "
    "with a folder of Princeton's files"
)
_CATEGORIES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_TIMEOUT = 10  # seconds; NLTK itself waits two minutes for a network that swallows packets


def find_wordnet() -> Traversable | None:
    """The folder from which NLTK reads WordNet, which may lie in a zip file; None without one."""
    import nltk.data

    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            found = nltk.data.find(name)
        except LookupError:
            continue
        if isinstance(found, nltk.data.ZipFilePathPointer):
            return zipfile.Path(str(found.zipfile.filename), found.entry)
        return Path(str(found))
    return None


def install_wordnet(folder: Path | None = None) -> str:
    """Put WordNet where NLTK finds it, and return that place; nothing is done where it is there.

    Args:
        folder: Princeton's files to copy; otherwise NLTK's download, then Debian's files are tried.

    Raises:
        ProbekitError: no route works; the folder lacks files; with ``folder``, WordNet is there
            already; or the place cannot be written.
    """
    found = find_wordnet()
    if folder is not None:
        if found is not None:
            raise ProbekitError(f"WordNet is already at {found}; delete that to use {folder}")
        return _copy(folder)
    if found is not None:
        return str(found)
    refused = []
    for route in (_download, _copy_debian):
        try:
            return route()
        except ProbekitError as error:
            refused.append(str(error))
    raise ProbekitError(f"WordNet cannot be had: {'; '.join(refused)}; try {ROUTES}")


def _download() -> str:
    import nltk

    try:
        with _short_timeout():
            nltk.download(
                "wordnet",
                download_dir=str(_target().parent.parent),
                quiet=True,
                raise_on_error=True,
                print_error_to=io.StringIO(),
            )
    except (ValueError, OSError) as error:
        raise ProbekitError(f"NLTK's download failed ({' '.join(str(error).split())})") from error
    found = find_wordnet()
    if found is None:
        raise ProbekitError("NLTK's download left nothing that NLTK finds")
    return str(found)


@contextmanager
def _short_timeout() -> Iterator[None]:
    from nltk import downloader

    usual, downloader.NETWORK_TIMEOUT = downloader.NETWORK_TIMEOUT, _TIMEOUT
    try:
        yield
    finally:
        downloader.NETWORK_TIMEOUT = usual


def _copy_debian() -> str:
    return _copy(DEBIAN)


def _copy(source: Path) -> str:
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise ProbekitError(f"{source} lacks {', '.join(missing)}")
    target = _target()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
            new = Path(temporary) / "wordnet"
            new.mkdir()
            for name in FILES:
                shutil.copyfile(source / name, new / name)
            lines = [f"{i:02}\t{name}\t{_category(name)}\n" for i, name in enumerate(LEXNAMES)]
            (new / "lexnames").write_text("".join(lines))
            new.rename(target)
    except OSError as error:
        raise ProbekitError(
            f"cannot write WordNet to {target} ({error}); set NLTK_DATA to a folder of your own"
        ) from error
    return str(target)


def _category(lexname: str) -> int:
    return _CATEGORIES[lexname.partition(".")[0]]


def _target() -> Path:
    import nltk.data

    return Path(nltk.data.path[0]) / "corpora" / "wordnet"
