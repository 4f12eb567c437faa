"""How long imports and commands take, each in a fresh interpreter.

    python benchmarks/startup.py       # about two minutes

The limits: importing probekit and touching every public name takes at most 0.3 s more than
importing torch and transformer_lens, on which it stands; `probekit ls` takes at most 1 s.
"""

import subprocess
import sys
from functools import partial

import harness

LENS, PUBLIC, LS = "import torch, transformer_lens", "every public name", "probekit ls"
NOTHING = "python alone"
CODE = {
    NOTHING: "",
    LENS: LENS,
    "import probekit": "import probekit",
    "probekit.load": "import probekit; probekit.load",
    PUBLIC: "import probekit\nfor name in dir(probekit): getattr(probekit, name)",
}
COMMANDS = {LS: ["ls"], "probekit --help": ["--help"]}
BEYOND, LS_LIMIT = 0.3, 1.0


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main(config: harness.Settings) -> None:
    arms = {name: partial(run, "-c", code) for name, code in CODE.items()}
    arms |= {name: partial(run, "-m", "probekit.cli", *given) for name, given in COMMANDS.items()}
    with harness.Report(__file__, __doc__, config) as report:
        times = harness.timed(arms, config.rounds)
        report.table("a fresh interpreter", times, (LENS,), unit="s", scale=1.0)
        report.limit(f"{PUBLIC} - ({LENS})", times.beyond(PUBLIC, LENS), BEYOND, "s")
        report.limit(LS, times.median(LS), LS_LIMIT, "s")


if __name__ == "__main__":
    main(harness.settings(harness.Settings(rounds=7), __doc__))
