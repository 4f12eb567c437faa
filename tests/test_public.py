"""What `import probekit as pk` offers; a change here is a change of the public interface."""

import subprocess
import sys

import pytest

import probekit as pk

PUBLIC = {
    # models
    "HookedTransformerConfig",
    "list_models",
    "load",
    "equilibrium",
    "EquilibriumModel",
    "random_twin",
    "wrap",
    # sites and attaching
    "Site",
    "list_sites",
    "attach",
    "Attachment",
    "Receipt",
    "Inspection",
    "inspect_model",
    "verify",
    # probes and interventions
    "Observer",
    "Intervention",
    "WeightIntervention",
    "Firing",
    "VDI",
    "AttentionEntropy",
    "Record",
    "ResidualStats",
    "LogitMargin",
    "Accuracy",
    "GaussianEntropy",
    "DeadNeurons",
    "compare",
    "talk",
    "Talk",
    "HeadScale",
    "AttentionScale",
    "SetPattern",
    "Edit",
    "Noise",
    "Clamp",
    "Lerp",
    "FieldModulator",
    "SwapWeights",
    "SwapQK",
    "SwapPackedRows",
    "FreezeWeights",
    "sweep",
    "Branch",
    "list_probes",
    "list_interventions",
    "to_dict",
    "from_dict",
    "save_items",
    "load_items",
    # results and errors
    "Measurement",
    "ProbekitError",
    "SiteError",
    "HookNeverFiredError",
    "DecorativeHookError",
    "CardError",
    "RunError",
    # namespaces
    "dynamics",
    "entropy",
    "geometry",
    "lexicon",
    "modulators",
    "training",
    "weights",
}


def test_the_public_names():
    assert set(dir(pk)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_each_public_name_is_there(name):
    assert getattr(pk, name).__name__.rpartition(".")[2] in (name, "TransformerBridgeConfig")


def test_an_unknown_name():
    with pytest.raises(AttributeError, match=r"^module 'probekit' has no attribute 'VID'$"):
        _ = pk.VID


def test_importing_probekit_does_not_wait_for_torch():
    code = "import sys, probekit; dir(probekit); print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
