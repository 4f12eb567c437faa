"""The three routes by which WordNet gets where NLTK finds it."""

import zipfile

import nltk
import nltk.downloader as downloader
import pytest
from wordnet_files import Synset, write

from probekit import cli
from probekit.errors import ProbekitError
from probekit.lexicon import data, find_wordnet, install_wordnet, load_wordnet


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where NLTK looks for data: one empty folder. Nothing is downloaded, Debian has nothing."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "data")])
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "debian")

    def refuse(*args, **kwargs):
        raise ValueError("no\nnetwork")

    monkeypatch.setattr(nltk, "download", refuse)
    return tmp_path / "data" / "corpora" / "wordnet"


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    write(folder, [Synset("n", ("thing",)), Synset("n", ("dog",), (0,))])
    (folder / "lexnames").unlink()  # as with Debian's packages
    return folder


def test_a_folder(place, files, capsys):
    assert cli.main(["data", "wordnet", "--folder", str(files)]) == 0
    assert capsys.readouterr().out == f"wordnet is at {place}\n"
    assert find_wordnet() == place
    assert load_wordnet().names == ("thing.n.01", "dog.n.01")
    # No half-written folder stays, and NLTK's fixed table is there.
    assert [path.name for path in place.parent.iterdir()] == ["wordnet"]
    lines = (place / "lexnames").read_text().splitlines()
    assert (lines[3], lines[44], len(lines)) == ("03\tnoun.Tops\t1", "44\tadj.ppl\t3", 45)
    with pytest.raises(ProbekitError) as error:
        install_wordnet(files)
    assert str(error.value) == f"WordNet is already at {place}; delete that to use {files}"
    assert install_wordnet() == str(place)


def test_debians_files_where_there_is_no_network(place, files):
    files.rename(data.DEBIAN)
    assert install_wordnet() == str(place) == str(find_wordnet())


def test_nltks_download_is_a_zip(place, files, monkeypatch):
    def download(name, download_dir, **options):
        assert (name, download_dir) == ("wordnet", str(place.parent.parent))
        place.parent.mkdir(parents=True)
        with zipfile.ZipFile(place.parent / "wordnet.zip", "w") as file:
            for path in files.iterdir():
                file.write(path, f"wordnet/{path.name}")

    monkeypatch.setattr(nltk, "download", download)
    install_wordnet()
    assert load_wordnet().names == ("thing.n.01", "dog.n.01")


def test_no_route(place, capsys):
    with pytest.raises(ProbekitError) as error:
        install_wordnet()
    missing = ", ".join(data.FILES)
    assert str(error.value) == (
        "WordNet cannot be had: NLTK's download failed (no network); "
        f"{data.DEBIAN} lacks {missing}; try {data.ROUTES}"
    )
    assert cli.main(["data", "wordnet"]) == 1
    with pytest.raises(ProbekitError) as error:
        load_wordnet()
    assert str(error.value) == f"WordNet is not installed; get it by {data.ROUTES}"


def test_a_download_that_hangs_is_given_up_soon(place, monkeypatch):
    seen = []
    monkeypatch.setattr(nltk, "download", lambda *a, **k: seen.append(downloader.NETWORK_TIMEOUT))
    usual = downloader.NETWORK_TIMEOUT
    with pytest.raises(ProbekitError, match="NLTK's download left nothing that NLTK finds"):
        install_wordnet()
    assert seen == [10] and usual == downloader.NETWORK_TIMEOUT


def test_a_place_that_cannot_be_written(place, files, tmp_path):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(ProbekitError) as error:
        install_wordnet(files)
    assert str(error.value).startswith(f"cannot write WordNet to {place} (")
    assert str(error.value).endswith("); set NLTK_DATA to a folder of your own")
