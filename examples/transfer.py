# %% [markdown]
# # Another instrument
#
# A model of a laboratory instrument learns to serve a handheld one, from 30 objects that both have measured, without
# any laboratory value of the handheld's. Nothing is needed but Tamis itself. This is a notebook in the percent format:
# it runs as a script, and editors show its cells (Jupyter with jupytext).

# %%
import os
import shlex
import tempfile

import numpy as np
from pyarrow.csv import read_csv

from tamis.streamer.cli import app

os.chdir(tempfile.mkdtemp(prefix="tamis-"))


def tamis(words: str) -> None:
    """As `tamis ...` in a terminal."""
    app(shlex.split(words), standalone_mode=False)


# %% [markdown]
# ## Two instruments
#
# The handheld's axis is off by 3 nm, it reads 4 % more, and its window absorbs at 1240 nm, on some days more.

# %%
rng = np.random.default_rng(0)
nm = np.linspace(1100, 1690, 60)


def of_band(at: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((at - centre) / width) ** 2))


def measured(fat: np.ndarray, instrument: str) -> np.ndarray:
    """(n,) % -> (n, 60) absorbances"""
    n, at = len(fat), nm - 3 if instrument == "handheld" else nm
    water = 78 - fat + rng.normal(0, 1.5, n)
    spectra = np.outer(0.006 * fat, of_band(at, 1210, 40)) + np.outer(0.01 * water, of_band(at, 1450, 60))
    spectra += rng.uniform(0.1, 0.2, (n, 1))
    if instrument == "handheld":
        spectra = 1.04 * spectra + np.outer(rng.uniform(0.01, 0.03, n), of_band(at, 1240, 70))
    return spectra + rng.normal(0, 2e-4, (n, 60))


def write(path: str, fat: np.ndarray, *instruments: str, values: bool = True) -> None:
    """One row a spectrum: the object, the instrument, the laboratory's value, the bands."""
    with open(path, "w") as file:
        print("sample_id", "instrument", "fat", *(f"{value:g}" for value in nm), sep=",", file=file)
        for instrument in instruments:
            for i, (value, row) in enumerate(zip(fat, measured(fat, instrument), strict=True)):
                known = f"{value + rng.normal(0, 0.3):.2f}" if values else ""
                cells = (f"{absorbance:.6f}" for absorbance in row)
                print(f"{path}-{i}", instrument, known, *cells, sep=",", file=file)


new = rng.uniform(5, 25, 60)
write("calibration.csv", rng.uniform(5, 25, 90), "lab")
write("pairs.csv", rng.uniform(5, 25, 30), "lab", "handheld", values=False)
write("new.csv", new, "handheld")

# %% [markdown]
# ## The laboratory's model on the handheld
#
# It is wrong, and says so: hardly a spectrum is trusted.

# %%
fit = "fit calibration.csv --axis-unit nm --target fat --unit fat=% --name fat --store store"
tamis(f"{fit} --preprocess 'snv, savgol 7 2 1'")


def rmsep_and_trusted() -> tuple[float, float]:
    tamis("predict new.csv --axis-unit nm --model fat --store store --to predicted.csv")
    predicted = read_csv("predicted.csv")
    error = predicted["fat"].to_numpy() - new
    return float(np.sqrt(np.mean(error**2))), sum(predicted["trusted"].to_pylist()) / len(new)


before, trusted_before = rmsep_and_trusted()

# %% [markdown]
# ## The transfer
#
# All corrections are tried, and the best one is published in a new version. From then on the name of the instrument in
# the file, or in a message on Kafka, decides whether it is applied.

# %%
tamis("transfer pairs.csv --axis-unit nm --from lab --to handheld --name fat --store store")
after, trusted_after = rmsep_and_trusted()
print(f"RMSEP on the handheld: {before:.2f} %, {trusted_before:.0%} trusted; after the transfer {after:.2f} %", end="")
print(f", {trusted_after:.0%} trusted")
assert after < 0.5 * before
assert trusted_after > 0.8
