"""Results by the names of observers, and what is refused as an item."""

import inspect

import pytest

import probekit as pk


def test_two_observers_of_one_name_are_refused(built):
    family = built("native")
    with pytest.raises(pk.ProbekitError) as error:
        pk.attach(family.model, pk.VDI(), pk.VDI(order="pattern-first"))
    assert str(error.value) == ("two observers are named 'vdi'; give one of them another name=...")


def test_what_is_no_item_is_refused(built):
    from probekit.attachment import _streams

    with pytest.raises(pk.ProbekitError) as error:
        inspect.unwrap(_streams)(["vdi"])
    assert str(error.value) == (
        "'vdi' is neither an observer nor an intervention; "
        "see pk.list_probes() and pk.list_interventions()"
    )
    with pytest.raises(pk.ProbekitError) as error:
        inspect.unwrap(_streams)([pk.VDI])
    assert str(error.value) == "VDI is a class; give an instance, VDI(...)"


def test_results_by_name(built):
    family = built("native")
    with pk.attach(family.model, pk.VDI(), pk.AttentionEntropy(name="nats")) as run:
        with pytest.raises(pk.ProbekitError) as error:
            run["vdi"]
        assert str(error.value) == "observer 'vdi' has seen nothing yet; run the model first"
        family.run()
    assert run.keys() == ["vdi", "nats"]
    assert (run["vdi"].name, run["nats"].name) == ("vdi", "nats")
    with pytest.raises(pk.ProbekitError) as error:
        run["attention_entropy"]
    assert str(error.value) == (
        "unknown observer of this attachment 'attention_entropy'; valid: vdi, nats"
    )


def test_the_repr_says_what_is_attached(built):
    family = built("native")
    with pk.attach(family.model, pk.HeadScale(0, 0, 0.5)) as run:
        assert repr(run) == "Attachment(HookedModel, 1 hooks, attached, results: none)"
        family.run()
