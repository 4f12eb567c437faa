import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probekit.errors import SiteError
from probekit.site import ATTENTION_PARTS, PART_AXES, PARTS, UNLAYERED, Site, parse_site

bounds = st.none() | st.integers(-5, 40)
steps = st.none() | st.integers(-5, -1) | st.integers(1, 40)
layers = st.none() | st.integers(-5, 40) | st.builds(slice, bounds, bounds, steps)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    part = draw(st.sampled_from(PARTS))
    return Site(
        part,
        layer=None if part in UNLAYERED else draw(layers),
        head=draw(st.none() | st.integers(0, 99)) if "head" in PART_AXES[part] else None,
        stack=draw(st.sampled_from([None, "encoder", "decoder", "text", "vision"])),
        attn=draw(st.sampled_from([None, "self", "cross"])) if part in ATTENTION_PARTS else None,
    )


@given(sites())
def test_the_text_of_a_site_reads_back_as_the_site(site):
    assert parse_site(str(site)) == site


@given(sites())
def test_the_repr_of_a_site_evaluates_to_the_site(site):
    assert eval(repr(site)) == site


def test_a_site_passes_through_unchanged():
    site = Site("z", layer=1)
    assert parse_site(site) is site


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("pattern", Site("pattern")),
        ("0.pattern:1", Site("pattern", 0, 1)),
        ("-1.z", Site("z", -1)),
        ("*.z", Site("z")),
        ("encoder.3.resid_pre", Site("resid_pre", 3, stack="encoder")),
        ("decoder.2.cross.z", Site("z", 2, stack="decoder", attn="cross")),
        ("decoder.2.self.z:3", Site("z", 2, 3, "decoder", "self")),
        ("cross.pattern", Site("pattern", attn="cross")),
        ("vision.0:4.mlp_out", Site("mlp_out", slice(0, 4), stack="vision")),
        (":4.z", Site("z", slice(None, 4))),
        ("-2:.z", Site("z", slice(-2, None))),
        ("::2.z", Site("z", slice(None, None, 2))),
        ("text.ln_final", Site("ln_final", stack="text")),
    ],
)
def test_addresses(address, site):
    assert parse_site(address) == site


VALID = (
    "valid: embed, resid_pre, resid_mid, resid_post, ln1, ln2, ln3, q, k, v, z, scores and 7 more"
)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("0.patern", f"site '0.patern': unknown part 'patern'; {VALID}; closest: 'pattern'"),
        (
            "resid",
            f"site 'resid': unknown part 'resid'; {VALID}; "
            "closest: 'resid_pre', 'resid_mid', 'resid_post'",
        ),
        ("", f"site '': unknown part ''; {VALID}"),
        (
            "0.mlp_out:1",
            "site '0.mlp_out:1': 'mlp_out' has no heads; parts with heads: q, k, v, z, scores, "
            "pattern",
        ),
        ("0.z:x", "site '0.z:x': head 'x' is not a whole number"),
        ("0.z:-1", "site '0.z:-1': head '-1' is not a whole number"),
        ("0.z:", "site '0.z:': head '' is not a whole number"),
        (
            "0.1.z",
            "site '0.1.z': two words for the layer, '0' and '1'; "
            "the form is [stack.]layer.[self.|cross.]part[:head]",
        ),
        (
            "text.vision.0.z",
            "site 'text.vision.0.z': two words for the stack, 'text' and 'vision'; "
            "the form is [stack.]layer.[self.|cross.]part[:head]",
        ),
        (
            "self.cross.z",
            "site 'self.cross.z': two words for the attn, 'self' and 'cross'; "
            "the form is [stack.]layer.[self.|cross.]part[:head]",
        ),
        (
            "0.cross.mlp_out",
            "site '0.cross.mlp_out': 'mlp_out' belongs to no attention, so attn='cross' has no "
            "meaning",
        ),
        ("0.embed", "site '0.embed': 'embed' exists once a stack; leave the layer out"),
        ("-1.logits", "site '-1.logits': 'logits' exists once a stack; leave the layer out"),
    ],
)
def test_wrong_addresses(address, message):
    with pytest.raises(SiteError) as error:
        parse_site(address)
    assert str(error.value) == message


def test_an_unknown_attention():
    with pytest.raises(SiteError) as error:
        Site("z", attn="crss")
    assert str(error.value) == "unknown attn 'crss'; valid: self, cross; closest: 'cross'"


def test_what_is_no_text_is_no_address():
    with pytest.raises(SiteError, match=r"^a site is a string or a pk\.Site, not int$"):
        inspect.unwrap(parse_site)(3)  # without the type check that tests run under


def test_a_name_of_transformerlens_is_answered_with_where_the_address_is():
    with pytest.raises(SiteError, match=r"^site 'blocks.0.hook_z' is a name of TransformerLens; "):
        parse_site("blocks.0.hook_z")
