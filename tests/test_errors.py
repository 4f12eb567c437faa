import pytest

from probekit import errors


def test_every_error_is_a_probekit_error():
    named = ("SiteError", "HookNeverFiredError", "DecorativeHookError", "CardError", "RunError")
    for name in named:
        assert issubclass(getattr(errors, name), errors.ProbekitError)


@pytest.mark.parametrize(
    ("given", "phrase"),
    [("patern", "; closest: 'pattern'"), ("Z", "; closest: 'z'"), ("embedding", "")],
)
def test_closest_ignores_case_and_may_be_empty(given, phrase):
    assert errors.closest(given, ["pattern", "scores", "z"]) == phrase


def test_unknown_names_what_was_given_what_is_valid_and_the_closest():
    message = errors.unknown("part", "patern", ["pattern", "scores"])
    assert message == "unknown part 'patern'; valid: pattern, scores; closest: 'pattern'"


def test_unknown_cuts_a_long_list_but_looks_for_the_closest_in_all_of_it():
    names = [f"site{index:02}" for index in range(14)] + ["logits"]
    message = errors.unknown("part", "logit", names)
    listed = ", ".join(names[:12])
    assert message == f"unknown part 'logit'; valid: {listed} and 3 more; closest: 'logits'"


def test_unknown_says_when_nothing_is_valid():
    assert errors.unknown("recipe", "x", []) == "unknown recipe 'x'; valid: none"
