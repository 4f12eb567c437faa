"""How long imports and commands take, each in a fresh interpreter.

    python benchmarks/startup.py       # about two minutes

The limits: importing probekit takes at most 0.3 s more than importing torch and transformer_lens,
on which it stands; `probekit ls` takes at most 1 s. Both libraries import what they offer when it
is first used: every public name stands beside the part of transformer_lens that holds its bridge.
"""

import subprocess
import sys
from functools import partial

import harness

LENS, PUBLIC, LS = "import torch, transformer_lens", "every public name", "probekit ls"
BRIDGE, BOTH = "from transformer_lens import TransformerBridge", f"{LENS}, probekit"
NOTHING = "python alone"
CODE = {
    NOTHING: "",
    LENS: LENS,
    BOTH: BOTH,
    BRIDGE: f"import torch; {BRIDGE}",
    "import probekit": "import probekit",
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
        report.table("a fresh interpreter", times, (LENS, BRIDGE), unit="s", scale=1.0)
        report.limit(f"({BOTH}) - ({LENS})", times.beyond(BOTH, LENS), BEYOND, "s")
        report.limit(LS, times.median(LS), LS_LIMIT, "s")


if __name__ == "__main__":
    main(harness.settings(harness.Settings(rounds=5), __doc__))
