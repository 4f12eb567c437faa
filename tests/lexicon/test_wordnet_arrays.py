"""Everything read from WordNet's files is what NLTK reads from them."""

import numpy as np
import pytest

from probekit.errors import ProbekitError
from probekit.lexicon import load_wordnet, synsets_of
from probekit.lexicon.data import ROUTES
from probekit.lexicon.depth import max_depths


def assert_as_nltk(wordnet, reader, places):
    for i in places:
        one = reader.synset_from_pos_and_offset(str(wordnet.pos[i]), int(wordnet.offsets[i]))
        assert wordnet.names[i] == one.name()
        assert wordnet.pos[i] == one.pos()
        assert wordnet.glosses[i] == one.definition()
        assert list(wordnet.lemmas[i]) == one.lemma_names()
        assert wordnet.lexnames[i] == one.lexname()
        assert wordnet.min_depth[i] == one.min_depth()
        assert wordnet.max_depth[i] == one.max_depth()
        edges = slice(wordnet.starts[i], wordnet.starts[i + 1])
        above, kinds = wordnet.parents[edges], wordnet.instance[edges]
        assert sorted(wordnet.names[j] for j in above[~kinds]) == sorted(
            each.name() for each in one.hypernyms()
        )
        assert sorted(wordnet.names[j] for j in above[kinds]) == sorted(
            each.name() for each in one.instance_hypernyms()
        )
        assert not (kinds[:-1] & ~kinds[1:]).any()  # instances last


def test_a_tangled_taxonomy(small, small_reader):
    assert small.names == tuple(one.name() for one in small_reader.all_synsets())
    assert_as_nltk(small, small_reader, range(len(small)))


def test_the_real_one(wordnet, reader):
    assert len(wordnet) == 117_659 == len(set(wordnet.names))
    order = [wordnet.pos[0], *wordnet.pos[1:][wordnet.pos[1:] != wordnet.pos[:-1]]]
    assert [pos for pos in dict.fromkeys(order) if pos != "s"] == ["a", "r", "n", "v"]
    assert_as_nltk(wordnet, reader, np.random.default_rng(0).choice(len(wordnet), 500).tolist())


def test_senses_are_nltks(wordnet, reader):
    rng = np.random.default_rng(1)
    words = [wordnet.lemmas[i][-1] for i in rng.choice(len(wordnet), 200)]
    words += ["lost", "geese", "better", "running", "Men", "churches", "boxes", "flies"]
    words += ["xes", "s", "ies", "hot dogs", "oxen", "as"]
    for word in words:
        expected = [one.name() for one in reader.synsets(word)]
        assert [wordnet.names[i] for i in synsets_of(wordnet, word)] == expected


def test_first_hypernyms_are_the_files_first(wordnet):
    # dog.n.01 has two; NLTK keeps them in a set.
    dog = wordnet.index("dog.n.01")
    above = wordnet.parents[wordnet.starts[dog] : wordnet.starts[dog + 1]]
    assert [wordnet.names[i] for i in above] == ["canine.n.02", "domestic_animal.n.01"]


def test_it_is_read_once(small, small_folder):
    assert load_wordnet(small_folder) is small
    assert repr(small) == "WordNet(135 synsets)"


def test_an_unknown_name(small):
    with pytest.raises(ProbekitError, match=r"^unknown synset 'bog.n.01', such as 'dog.n.01'"):
        small.index("bog.n.01")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ProbekitError) as error:
        load_wordnet(tmp_path)
    assert str(error.value).startswith(f"{tmp_path} lacks data.adj, data.adv")
    assert str(error.value).endswith(f"cntlist.rev; get WordNet by {ROUTES}")


def test_files_of_something_else(small_folder, tmp_path):
    for file in small_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "data.verb").write_text("no synset\n")
    with pytest.raises(ProbekitError, match=r"holds no WordNet that can be read \(ValueError"):
        load_wordnet(tmp_path)


def test_a_cycle():
    with pytest.raises(ProbekitError) as error:
        max_depths(np.array([0, 1, 2]), np.array([1, 0]))
    assert str(error.value) == "a chain of hypernyms is longer than 256: the taxonomy has a cycle"
