"""WordNet's files, damaged."""

import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from malformed import changed_bytes, examples, only_reads

from probekit.lexicon import load_wordnet


@given(st.sampled_from(["data.noun", "data.adj", "index.verb", "noun.exc", "lexnames"]), st.data())
@examples(16)
def test_files_whose_bytes_changed(tmp_path_factory, small_folder, name, data):
    # In a folder of its own each time: what was read is kept by its place.
    folder = Path(shutil.copytree(small_folder, tmp_path_factory.mktemp("wordnet") / "files"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(data.draw(changed_bytes(content)))
    only_reads(folder, lambda: load_wordnet(folder), folder)
