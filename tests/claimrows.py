"""A row of a summary as :func:`probekit.claims.decide` writes it."""


def row(id: str = "009-1", **changed) -> dict:
    plain = {
        "id": id,
        "source": "a paper",
        "statement": "a | b",
        "published": [0.5, 0.75],
        "tolerance": 0.0,
        "measured": 0.6,
        "interval": [0.5, 0.7],
        "null": 0.1,
        "control": "chance",
        "verdict": "reproduced",
        "n": 3,
        "observed": 3,
        "reason": None,
    }
    return plain | changed
