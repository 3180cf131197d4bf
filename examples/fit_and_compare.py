# %% [markdown]
# # Fit, compare, predict
#
# From a file with laboratory values to a model, its predictions, and a file for programs without Tamis. Nothing is
# needed but Tamis itself. This is a notebook in the percent format: it runs as a script, and editors show its cells
# (Jupyter with jupytext).

# %%
import os
import shlex
import tempfile
from pathlib import Path

import numpy as np
from pyarrow.csv import read_csv

from tamis.streamer.cli import app

os.chdir(tempfile.mkdtemp(prefix="tamis-"))


def tamis(words: str) -> None:
    """As `tamis ...` in a terminal."""
    app(shlex.split(words), standalone_mode=False)


# %% [markdown]
# ## A file of spectra
#
# 150 samples of meat with 60 bands: fat, water and protein absorb, each sample scatters in its own way, and the
# laboratory errs by 0.3 %. With spectra of your own this cell is not needed: `docs/files.md` has the command for your
# instrument's export.

# %%
rng = np.random.default_rng(0)
nm = np.linspace(1100, 1690, 60)
fat = rng.uniform(2, 30, 150)
water, protein = 78 - fat + rng.normal(0, 1.5, 150), 22 - 0.1 * fat + rng.normal(0, 1, 150)
widths = {1210: 40, 1390: 30, 1450: 60, 1510: 50}
band = {centre: np.exp(-(((nm - centre) / width) ** 2)) for centre, width in widths.items()}
absorbance = np.column_stack([0.006 * fat, 0.01 * water, 0.006 * protein]) @ np.array(
    [band[1210] + 0.4 * band[1390], band[1450], band[1510]]
)
absorbance *= rng.normal(1, 0.1, (150, 1))
absorbance += rng.uniform(0.1, 0.5, (150, 1)) + rng.normal(0, 2e-4, (150, 60))
table = np.column_stack([fat + rng.normal(0, 0.3, 150), absorbance])
head = ",".join(["fat", *(f"{value:g}" for value in nm)])
np.savetxt("meat.csv", table[:110], delimiter=",", header=head, comments="", fmt="%.6g")
np.savetxt("new.csv", table[110:], delimiter=",", header=head, comments="", fmt="%.6g")

# %% [markdown]
# ## Look, compare, fit
#
# `inspect` shows what `fit` would see. `compare` fits each model to the same rows, and tests in pairs which one is
# better.

# %%
tamis("inspect meat.csv --axis-unit nm --target fat")

# %%
tamis("compare meat.csv --axis-unit nm --target fat --models plsr,committee --labels 50 --seeds 1")

# %%
tamis("fit meat.csv --axis-unit nm --target fat --unit fat=% --name fat --store store --preprocess 'snv, savgol 7 2 1'")

# %% [markdown]
# ## Predict, and judge by samples that the model has not seen

# %%
tamis("predict new.csv --axis-unit nm --model fat --store store --to predicted.csv")
predicted = read_csv("predicted.csv")
value, low, high = (predicted[name].to_numpy() for name in ("fat", "fat_low", "fat_high"))
error, inside = value - table[110:, 0], (low <= table[110:, 0]) & (table[110:, 0] <= high)
rmsep = float(np.sqrt(np.mean(error**2)))
print(f"RMSEP {rmsep:.2f} % fat; {inside.mean():.0%} of the values lie in their 90 % interval")
assert rmsep < 0.8

# %% [markdown]
# ## The coefficients, for other programs
#
# Here the pre-treatment that is left to do is SNV; the derivative is folded into the coefficients. `--onnx` writes
# any kind of model.

# %%
tamis("models export fat --store store --csv fat.csv")
lines = Path("fat.csv").read_text().splitlines()
print(*lines[:14], sep="\n")
_, intercept, *rows = (line.split(",") for line in lines if not line.startswith("#"))
coefficients = np.array([float(row[1]) for row in rows])
spectra = table[110:, 1:]
snv = (spectra - spectra.mean(axis=1, keepdims=True)) / spectra.std(axis=1, ddof=1, keepdims=True)
by_hand = float(intercept[1]) + snv @ coefficients
print(f"by hand and by Tamis they differ by {np.abs(by_hand - value).max():.1e} % fat at most")
assert np.allclose(by_hand, value, atol=1e-3)
