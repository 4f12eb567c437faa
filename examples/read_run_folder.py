"""Read with pandas what recipes measured: the results that come along, or a run folder."""

import matplotlib.pyplot as plt

from probekit.findings import read_findings
from probekit.paths import data_dir

frame = read_findings([data_dir("results")]).to_frame()  # or [pathlib.Path("runs")]
frame["write-up"] = frame["id"].str[:3]
counts = frame.groupby(["write-up", "verdict"]).size().unstack(fill_value=0)
print(counts)
print(frame.query("verdict == 'explained by null'").head()[["id", "statement", "null"]])

colors = {
    "reproduced": "C2",
    "explained by null": "C1",
    "not reproduced": "C3",
    "blocked": "C7",
    "not run": "C8",
}
counts.plot.barh(stacked=True, color=colors)
plt.xlabel("claims")
plt.savefig("read_run_folder.png", bbox_inches="tight")
