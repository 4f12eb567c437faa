import pytest

import probekit as pk
from probekit.hooked.cards import Card, card_names, check_config, config_fields, read_card

CARD = """
title = "A toy"
source = "native"

[config]
n_layers = 3
n_heads = 2
d_model = 8
d_head = 4
d_mlp = 16
n_ctx = 5
d_vocab = 11
act_fn = "relu"
normalization_type = "LN"
"""


@pytest.fixture
def card(tmp_path):
    """Writes a card and returns its path."""

    def write(text: str = CARD):
        path = tmp_path / "toy.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", card_names())
def test_every_shipped_card_is_read(name):
    read = read_card(name)
    assert read.name == name and read.title
    given = read.id is not None or read.checkpoint is not None
    assert given == (read.source == "huggingface")


def test_the_needed_cards_are_there():
    needed = "grokking interleaved modular-deep-2 modular-deep-4 tiny-stories minilm bert-large"
    needed += " t5-small t5-base t5-v1_1-xxl clip-vit-b16 clip-vit-bigg dinov2-large vit-base"
    needed += " qwen3.5-0.8b qwen3.5-4b equilibrium"
    assert set(needed.split()) <= set(card_names())


def test_list_models():
    table = pk.list_models().set_index("name")
    assert list(table.index) == card_names()
    assert dict(table.loc["minilm"]) == {
        "title": "all-MiniLM-L6-v2, sentence encoder (BERT without head)",
        "source": "huggingface",
        "n_layers": 6,
        "n_heads": 12,
        "d_model": 384,
        "n_ctx": 512,
        "d_vocab": 30522,
        "weights": "sentence-transformers/all-MiniLM-L6-v2",
    }
    assert table.loc["grokking", "weights"] == "random initialisation"


def test_a_card_by_its_path(card):
    read = read_card(card())
    assert (read.name, read.title, read.source) == ("toy", "A toy", "native")
    assert read.config["n_layers"] == 3 and read.towers == {}


def test_a_second_tower_is_a_table_of_its_own():
    read = read_card("clip-vit-b16")
    assert read.towers["vision"]["d_model"] == 768
    assert "vision" not in read.main_config and read.main_config["d_model"] == 512


def test_an_unknown_card():
    with pytest.raises(pk.CardError) as error:
        read_card("minilm6")
    names = ", ".join(card_names()[:12])
    more = len(card_names()) - 12
    assert str(error.value) == (
        f"unknown model 'minilm6'; valid: {names} and {more} more; closest: 'minilm'"
    )


VALID_TOP = "valid: title, source, id, architecture, checkpoint, config"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'title = "A toy"',
            'titel = "A toy"',
            f"card 'toy': unknown key 'titel'; {VALID_TOP}; closest: 'title'",
        ),
        ('title = "A toy"', "", "card 'toy': title is missing; add title = \"...\""),
        ('source = "native"', "", "card 'toy': source is missing; add source = \"...\""),
        ('title = "A toy"', "title = 3", "card 'toy': title is missing; add title = \"...\""),
        (
            '"native"',
            '"natve"',
            "card 'toy': unknown source 'natve'; valid: native, equilibrium, huggingface; "
            "closest: 'native'",
        ),
        (
            '"native"',
            '"huggingface"',
            "card 'toy': source 'huggingface' needs architecture, and id or checkpoint",
        ),
        (
            "n_layers = 3",
            "n_layers = 0",
            "card 'toy': n_layers must be a positive whole number, not 0",
        ),
        (
            "n_layers = 3",
            "n_layers = true",
            "card 'toy': n_layers must be a positive whole number, not True",
        ),
        (
            "d_model = 8",
            "d_model = 8.0",
            "card 'toy': d_model must be a positive whole number, not 8.0",
        ),
    ],
)
def test_malformed_cards(card, old, new, message):
    assert old in CARD
    with pytest.raises(pk.CardError) as error:
        read_card(card(CARD.replace(old, new)))
    assert str(error.value) == message


def test_an_unknown_config_key_is_answered_with_the_closest(card):
    with pytest.raises(pk.CardError) as error:
        read_card(card(CARD.replace("n_layers", "n_layer")))
    fields = sorted(config_fields())
    assert str(error.value) == (
        f"card 'toy': unknown config key 'n_layer'; valid: {', '.join(fields[:12])} and "
        f"{len(fields) - 12} more; closest: 'n_layers'"
    )


def test_an_unknown_key_of_a_second_tower():
    with pytest.raises(pk.CardError, match=r"^card 'clip, vision': unknown config key 'd_modle'; "):
        check_config("clip", {"vision": {"d_modle": 3}})


def test_what_is_no_card_file(card, tmp_path):
    missing = tmp_path / "missing.toml"
    with pytest.raises(pk.CardError, match=rf"^cannot read {missing}: "):
        read_card(missing)
    for text, start in (
        ("title = ", rf"cannot read {tmp_path}/toy\.toml: "),
        ('config = "native"', "card 'toy': "),
    ):
        with pytest.raises(pk.CardError, match=rf"^{start}"):
            read_card(card(text))


def test_a_config_that_is_no_table(card):
    with pytest.raises(pk.CardError) as error:
        read_card(card('title = "A toy"\nsource = "native"\nconfig = "large"\n'))
    assert str(error.value) == "card 'toy': config must be a table, [config], not 'large'"


def test_a_card_made_in_python_is_checked_too():
    with pytest.raises(pk.CardError):
        Card("toy", "A toy", "native", {"n_layer": 1})
