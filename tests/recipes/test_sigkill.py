"""A recipe that is killed outright, at random moments and between any two file operations."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ENVIRONMENT


def output_of(program: str) -> str:
    """What one of the programs beside this file prints."""
    command = [sys.executable, str(Path(__file__).parent / program)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(record_property) -> None:
    found = json.loads(output_of("killed_at_random.py"))
    kills = found["kills"]
    assert sum(kills.values()) == 20
    assert min(kills.values()) >= 3
    assert found["finished"] == found["same"] >= 1
    said = " and ".join(f"{count} of {whom}" for whom, count in kills.items())
    record_property(
        "counts",
        f"SIGKILLs at 20 random moments, {said}; {found['starts']} starts, {found['finished']} "
        f"runs to their end, all {found['files']} files as of the undisturbed run of "
        f"{found['seconds']:.0f} CPU seconds",
    )


@pytest.mark.slow
def test_killed_before_any_file_operation_a_unit_ends_the_same(record_property) -> None:
    operations, same = map(int, output_of("killed_between.py").split())
    assert operations == same > 20
    record_property("counts", f"{operations} SIGKILLs, one before each file operation of a unit")
