import json
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

import probekit as pk
from probekit import registry
from probekit.probes.vdi import VDI as RealVDI

finite = st.floats(-1e6, 1e6)
layer = st.integers(-3, 3)
stack = st.sampled_from([None, "encoder", "decoder"])
makers = st.one_of(
    st.builds(
        dict,
        item=st.just("HeadScale"),
        layer=layer,
        head=st.integers(0, 3),
        omega=finite,
        stack=stack,
        attn=st.sampled_from([None, "self", "cross"]),
    ),
    st.builds(dict, item=st.just("AttentionScale"), alpha=finite, layer=layer, stack=stack),
    st.builds(
        dict,
        item=st.just("VDI"),
        normaliser=st.sampled_from(["length", "visible"]),
        order=st.sampled_from(["entropy-first", "pattern-first"]),
        queries=st.none() | st.lists(st.integers(-5, 5), min_size=1),
        site=st.sampled_from(["pattern", "0.pattern:1"]),
        name=st.none() | st.text(min_size=1),
        iterations=st.sampled_from(["first", "last", "all", 2]),
        differentiable=st.booleans(),
    ),
    st.builds(dict, item=st.just("AttentionEntropy"), queries=st.none() | st.just([1])),
    st.builds(dict, item=st.just("Record"), site=st.sampled_from(["z", "0:2.z"])),
)


@given(makers)
def test_items_round_trip_through_json(stored):
    item = pk.from_dict(stored)
    again = json.loads(json.dumps(pk.to_dict(item)))
    assert pk.from_dict(again) == item
    for key, value in stored.items():
        if key != "item":
            kept = getattr(item, key)
            assert (list(kept) if isinstance(value, list) else kept) == value


def test_defaults_are_left_out_and_sites_become_text():
    assert pk.to_dict(pk.VDI()) == {"item": "VDI"}
    assert pk.to_dict(pk.HeadScale(0, 1, 0.5)) == {
        "item": "HeadScale",
        "layer": 0,
        "head": 1,
        "omega": 0.5,
    }
    record = pk.Record(pk.Site("z", slice(0, 2), 1))
    assert pk.to_dict(record) == {"item": "Record", "site": "0:2.z:1"}
    assert pk.from_dict(pk.to_dict(record)).sites() == record.sites()


def test_a_function_cannot_be_stored():
    with pytest.raises(pk.ProbekitError) as error:
        pk.to_dict(pk.SetPattern(abs))
    assert str(error.value) == (
        "SetPattern.fn is a function, which cannot be stored; store the code that builds it instead"
    )


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"item": "HeadScal"},
            "unknown item 'HeadScal'; valid: VDI, AttentionEntropy, Record, HeadScale, "
            "AttentionScale, SetPattern, Edit; closest: 'HeadScale'",
        ),
        (
            {},
            "unknown item 'None'; valid: VDI, AttentionEntropy, Record, HeadScale, "
            "AttentionScale, SetPattern, Edit",
        ),
        (
            {"item": "AttentionScale", "alhpa": 1.0},
            "AttentionScale: unknown field 'alhpa'; valid: alpha, layer, stack; closest: 'alpha'",
        ),
        (
            {"item": "AttentionScale", "alpha": float("inf")},
            "alpha must be a finite number, not inf",
        ),
    ],
)
def test_what_cannot_be_read_back(stored, message):
    with pytest.raises(pk.ProbekitError) as error:
        pk.from_dict(stored)
    assert str(error.value) == message


def test_a_field_that_is_missing():
    with pytest.raises(pk.ProbekitError, match=r"^AttentionScale: .*missing.* argument: 'alpha'$"):
        pk.from_dict({"item": "AttentionScale"})


def test_list_probes():
    table = pk.list_probes()
    assert list(table.columns) == ["name", "reads", "null", "source"]
    assert list(table["name"]) == ["VDI", "AttentionEntropy", "Record"]
    assert dict(table.iloc[0]) == {
        "name": "VDI",
        "reads": 'Normalised attention entropy; the write-up\'s "Vector Disorder Index".',
        "null": "uniform attention under the same mask",
        "source": "Homeostatic Crystallization, 4.1-4.2; Shannon entropy",
    }
    assert (table != "").all(axis=None)


def test_list_interventions():
    table = pk.list_interventions()
    assert list(table.columns) == ["name", "edits", "source"]
    assert list(table["name"]) == ["HeadScale", "AttentionScale", "SetPattern", "Edit"]
    assert (table != "").all(axis=None)


# Third parties


@dataclass(frozen=True)
class Theirs(pk.Record):
    """Somebody else's probe."""


@dataclass(frozen=True)
class VDI(pk.Record):
    """Somebody else's probe of a name that is taken."""


@pytest.fixture
def installed(monkeypatch):
    """Pretends that a package is installed whose entry points are the given ones."""

    def install(group: str, *names: str) -> None:
        found = [EntryPoint(name.split(":")[1], name, group) for name in names]
        monkeypatch.setattr(
            registry, "entry_points", lambda group: [e for e in found if e.group == group]
        )

    return install


HERE = __name__


def test_an_installed_probe_is_listed_and_stored(installed):
    installed("probekit.probes", f"{HERE}:Theirs")
    table = pk.list_probes()
    assert dict(table.iloc[-1])["reads"] == "Somebody else's probe."
    stored = pk.to_dict(Theirs("z"))
    assert stored == {"item": "Theirs", "site": "z"}
    assert pk.from_dict(stored) == Theirs("z")
    assert "Theirs" not in list(pk.list_interventions()["name"])


def test_a_second_owner_of_a_name_is_refused(installed):
    installed("probekit.probes", f"{HERE}:VDI")
    with pytest.raises(pk.ProbekitError) as error:
        pk.list_probes()
    assert str(error.value) == (
        f"two probekit.probes are named 'VDI': {RealVDI.__module__} and {HERE}:VDI; uninstall or "
        "rename one of them"
    )


def test_one_owner_twice_is_no_quarrel(installed):
    installed("probekit.probes", f"{HERE}:Theirs", f"{HERE}:Theirs")
    assert list(pk.list_probes()["name"]).count("Theirs") == 1


@pytest.mark.parametrize("name", [f"{HERE}:finite", "probekit:HeadScale"])
def test_an_entry_that_is_no_probe_is_refused(installed, name):
    installed("probekit.probes", name)
    with pytest.raises(pk.ProbekitError) as error:
        pk.list_probes()
    assert str(error.value) == f"entry point {name} is not a subclass of Observer"
