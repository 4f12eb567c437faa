import pytest


@pytest.fixture(params=["entropy-first", "pattern-first"])
def order(request: pytest.FixtureRequest) -> str:
    """Either order of VDI."""
    return request.param


@pytest.fixture(params=["length", "visible"])
def normaliser(request: pytest.FixtureRequest) -> str:
    """Either normaliser of VDI."""
    return request.param
