"""Results by the names of observers, and what is refused as an item."""

import gc
import inspect
import weakref
from dataclasses import dataclass

import families
import pytest
import torch
from checks import unchanged

import probekit as pk
from probekit.site import PARTS
from probekit.sitemap import SiteMap


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


def test_an_attachment_that_has_ended_cannot_be_entered_again(built):
    family = built("native")
    run = pk.attach(family.model, pk.HeadScale(layer=0, head=0, omega=0.0))
    with run:
        family.run()
    with pytest.raises(pk.ProbekitError, match=r"^this attachment has ended; call"):
        run.__enter__()


def test_an_observer_that_writes_into_what_it_reads_is_refused(built):
    family = built("native")

    @dataclass(frozen=True)
    class Centring(pk.Record):
        def measure(self, x, at):
            return super().measure(x.sub_(x.mean()), at)

    message = r"^Centring\(site='0.z'\) wrote into the activation at 0.z; .* a copy, x.clone\(\)$"
    with (
        unchanged(family),
        pytest.raises(pk.ProbekitError, match=message),
        pk.attach(family.model, Centring("0.z")),
    ):
        family.run()


@pytest.mark.parametrize("wanted", ["0.z", ("0.z",), pk.Site("z", layer=0)])
def test_an_items_sites_may_be_addresses(wanted, built):
    family = built("native")

    class Doubling(pk.Intervention):
        def sites(self):
            return wanted

        def edit(self, x, at):
            return 2 * x

    with pk.attach(family.model, Doubling()) as run:
        family.run()
    assert run.fired == {"blocks.0.attn.hook_z": 1}


@pytest.mark.parametrize("model", [None, "gpt2"])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(pk.ProbekitError, match=r"is no model; give one of pk.load"):
        inspect.unwrap(SiteMap.__init__)(object.__new__(SiteMap), model)


def test_a_model_is_let_go_with_an_attachment_that_never_ended():
    def left() -> weakref.ref:
        family = families.bert()
        run = pk.attach(family.model, pk.VDI())
        family.run()
        assert run.fired
        return weakref.ref(family.model)

    model = left()
    gc.collect()
    assert model() is None


@pytest.mark.parametrize("name", ["native", "bert"])
def test_every_part_can_be_read_in_inference_mode(name, built):
    family = built(name)
    parts = [part for part in PARTS if len(sites_of(family.model, part))]
    observers = [pk.Record(sites_of(family.model, part)[0], name=part) for part in parts]
    with torch.inference_mode(), pk.attach(family.model, *observers) as run:
        family.model(*family.args, **family.kwargs)
    assert run.keys() == parts


def sites_of(model, part):
    return [str(site) for site in SiteMap(model).sites if site.part == part]
