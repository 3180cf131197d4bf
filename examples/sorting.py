# %% [markdown]
# # Sorting
#
# A belt with six polymers under a line camera: a classifier, a rule, and what is ejected. Nothing is needed but Tamis
# itself: the belt is simulated. This is a notebook in the percent format: it runs as a script, and editors show its
# cells (Jupyter with jupytext).

# %%
import json
import os
import shlex
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from tamis import read_spectra
from tamis.streamer.cli import app

os.chdir(tempfile.mkdtemp(prefix="tamis-"))


def tamis(words: str) -> None:
    """As `tamis ...` in a terminal."""
    app(shlex.split(words), standalone_mode=False)


# %% [markdown]
# ## Two belts: one to learn from, another one to sort

# %%
belt = "--pixels 32 --lines 40 --objects 2 --size 10"
tamis(f"simulate learn.parquet --seconds 20 --seed 1 {belt}")
tamis(f"simulate sort.parquet --seconds 15 --seed 2 {belt}")
learn = read_spectra("learn.parquet")
print(Counter(learn.columns["material"].tolist()))

# %% [markdown]
# ## The classifier
#
# Spectra of one object belong together: `--group`. Probabilities are calibrated, and each class has a limit, so that
# a foreign material is called unknown.

# %%
tamis("fit learn.parquet --target material --group object_id --name polymers --store store")

# %% [markdown]
# ## The rule
#
# Eject PVC, with the threshold at which 98 % of what is ejected is PVC. An object's spectra are pooled; the worker
# reads from a file here, and from Kafka on a line.

# %%
Path("line.toml").write_text(
    """
store = "store"
[lines."*"]
model = "polymers"
[lines."*".decide]
close_s = 0.1
rules = [{ action = "eject", class = "PVC", purity = 0.98 }]
"""
)
tamis("worker --config line.toml --from sort.parquet --to sorted")

# %% [markdown]
# ## What was ejected

# %%
sort = read_spectra("sort.parquet")
truth = dict(zip(sort.columns["object_id"].tolist(), sort.columns["material"].tolist(), strict=True))
counts: dict[str, Counter[str]] = defaultdict(Counter)
for line in Path("sorted/tamis.decisions.jsonl").read_text().splitlines():
    decision = json.loads(line)
    counts[decision["action"]][truth[decision["object_id"]]] += 1
print({action: dict(of) for action, of in counts.items()})
ejected, pvc = sum(counts["eject"].values()), sum(1 for material in truth.values() if material == "PVC")
print(f"{ejected} ejected, {counts['eject']['PVC']} of them PVC; {pvc} PVC on the belt")
assert counts["eject"]["PVC"] >= 0.9 * ejected > 0
