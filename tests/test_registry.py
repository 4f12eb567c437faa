from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

import probekit as pk
from probekit import registry
from probekit.probes.vdi import VDI as RealVDI


def test_list_probes():
    table = pk.list_probes()
    assert list(table.columns) == ["name", "reads", "null", "source"]
    assert list(table["name"]) == [cls.__name__ for cls in registry.GROUPS["probekit.probes"]]
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
    ours = registry.GROUPS["probekit.interventions"]
    assert list(table["name"]) == [cls.__name__ for cls in ours]
    assert (table != "").all(axis=None)


# Third parties


@dataclass(frozen=True)
class Theirs(pk.Record):
    """Somebody else's probe."""


@dataclass(frozen=True)
class VDI(pk.Record):
    """Somebody else's probe of a name that is taken."""


@dataclass(frozen=True)
class HeadScale(pk.Record):
    """Somebody else's probe with the name of an intervention."""


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


def test_a_name_in_both_groups_is_refused(installed):
    installed("probekit.probes", f"{HERE}:HeadScale")
    with pytest.raises(pk.ProbekitError) as error:
        pk.to_dict(HeadScale("z"))
    assert str(error.value) == (
        f"a probe and an intervention are named 'HeadScale': {HERE} and "
        f"{pk.HeadScale.__module__}; uninstall or rename one of them"
    )


def test_one_owner_twice_is_no_quarrel(installed):
    installed("probekit.probes", f"{HERE}:Theirs", f"{HERE}:Theirs")
    assert list(pk.list_probes()["name"]).count("Theirs") == 1


@pytest.mark.parametrize("name", [f"{HERE}:HERE", "probekit:HeadScale"])
def test_an_entry_that_is_no_probe_is_refused(installed, name):
    installed("probekit.probes", name)
    with pytest.raises(pk.ProbekitError) as error:
        pk.list_probes()
    assert str(error.value) == f"entry point {name} is not a subclass of Observer"
