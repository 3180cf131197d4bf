# %% [markdown]
# # Learning from the laboratory
#
# A process leaves its calibration behind: from one day on, something else absorbs too. Laboratory values arrive one
# by one. Each is weighed, and the gate judges each candidate, as `tamis trainer` does it on a line. Nothing is needed
# but Tamis itself (the trainer, as a service, needs `tamis[learn]`). This is a notebook in the percent format: it
# runs as a script, and editors show its cells (Jupyter with jupytext).

# %%
import numpy as np

from tamis.models.axis import Axis
from tamis.models.model import Calibration, Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.ssl.recipes import Labels
from tamis.ssl.refit import refit

rng = np.random.default_rng(0)
nm = np.linspace(1100, 1690, 60)


def measured(fat: np.ndarray, stranger: float) -> np.ndarray:
    """(n,) % -> (n, 60) absorbances, with so much of what the calibration did not have."""
    n = len(fat)
    bands = (1210, 40), (1450, 60), (1250, 60)
    of_fat, of_water, of_other = (np.exp(-(((nm - centre) / width) ** 2)) for centre, width in bands)
    water = 78 - fat + rng.normal(0, 1.5, n)
    parts = np.outer(0.006 * fat, of_fat) + np.outer(0.01 * water, of_water)
    other = stranger * np.outer(rng.uniform(0.8, 1.2, n), of_other)
    return parts + other + rng.uniform(0.1, 0.15, (n, 1)) + rng.normal(0, 2e-4, (n, 60))


# %% [markdown]
# ## The first model, and the process
#
# 60 calibration samples. Then 400 spectra of the process; the laboratory measures every thirtieth.

# %%
fat = rng.uniform(5, 25, 60)
laboratory = fat + rng.normal(0, 0.3, 60)
pipeline = Pipeline.parse("savgol 7 2 1")
champion = Model.fit(measured(fat, 0.0), Axis(nm, "nm"), laboratory, ["fat"], pipeline=pipeline, estimator=PLSR())
calibration = champion.calibration
assert calibration is not None

true = 15 + 5 * np.sin(np.arange(400) / 40) + rng.normal(0, 1, 400)
process = measured(true, 0.02).astype(np.float32)
first = champion.predict(process, champion.grid).values[:, 0]
sampled = np.arange(20, 400, 30)
values = true[sampled] + rng.normal(0, 0.3, len(sampled))

# %% [markdown]
# ## One value after the other
#
# Each spectrum is predicted by the model of its time: that is the figure that counts. The sixth value is wrong, as by
# a slip of the hand: it is held until a second value agrees.

# %%
WRONG = 5
values[WRONG] += 9
predicted, base, learned = first.copy(), None, 0
for n, at in enumerate(sampled, start=1):
    later = Calibration(process[sampled[:n]], values[:n, None], np.arange(n))
    labels = Labels.join(calibration, later, np.arange(n) >= learned, [f"sample {i + 1}" for i in range(n)])
    judged = refit(champion, labels, process=process[: at + 1], known=base)
    base = judged.base
    if judged.verdict.promoted:
        champion, learned = judged.model, n
    outcome = "learned in a new version" if judged.verdict.promoted else str(judged.held[-1])
    print(f"value {n:2}, {values[n - 1]:5.1f} %: {outcome}")
    predicted[at + 1 :] = champion.predict(process[at + 1 :], champion.grid).values[:, 0]

# %% [markdown]
# ## What it was worth


# %%
def rmsep(of: np.ndarray) -> float:
    return float(np.sqrt(np.mean((of - true)[sampled[0] :] ** 2)))


print(f"RMSEP of the first model {rmsep(first):.2f} %; each spectrum by the model of its time {rmsep(predicted):.2f} %")
held = [one.spectrum_id for one in judged.held]
assert held == [f"sample {WRONG + 1}"], held
assert rmsep(predicted) < 0.6 * rmsep(first)
