"""What `any_axis` pretrains on, and how: databases, simulated mixtures, simulated sensors, contrast and reconstruction.

Everything is drawn from a seed. A trained network is kept in build/any_axis, by its design, fold and seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from tamis import AxisMismatch
from tamis.models.axis import Axis
from tamis.models.network_training import average, torch_randomness, warm_up_then_cosine
from tamis.ssl.augment import Augmentation
from tamis.ssl.objectives import Objective
from tamis.ssl.unlabeled import Unlabeled
from tamis.streamer.files.many import read_table
from tamis.streamer.tools.materials import WATER, band_spectrum, polymers

from .page import ROOT
from .spectral_transformer import ORDERS, Reference, SpectralTransformer

DATA = ROOT.parent / "shared" / "data"
# Of each fold, the databases that are left out of pretraining: those whose responses it is judged on.
FOLDS = {
    "A": ("corn_3instruments", "diesel_swri", "cassava_ikeogu2017"),
    "B": ("tablets_idrc2002_2instruments", "soil_wallonia_nirsoil", "dough_biscuit"),
    "C": ("forage_ibf_neospectra", "tecator_meat"),
}
# The others, but for what has no wavelengths (milk_inline_stream, caltransfer), is a derivative (forages2) or has 5
# spectra (asd_gap).
OTHERS = (
    "earthlib_materials", "fresh_meats_mir", "fruit_puree_mir", "milk_inline_tubes", "octane_gasoline_spectra",
    "plastics_scanner_nir", "tablets_escitalopram", "fermentation",
)  # fmt: skip
FULL_SCALE = {"earthlib_materials": 1.0, "forage_ibf_neospectra": 100.0, "plastics_scanner_nir": 100.0,
              "milk_inline_tubes": 65_535.0}  # fmt: skip
OBJECT = {"corn_3instruments": "instrument", "tablets_idrc2002_2instruments": "instrument",
          "forage_ibf_neospectra": "grind"}  # natural pairs: the column of the condition  # fmt: skip
# The values of a laboratory; those of milk_inline_tubes cannot be learned from its spectra.
VALUES = {
    "corn_3instruments": ("moisture", "oil", "protein", "starch"),
    "diesel_swri": ("bp50", "cn", "d4052", "flash", "freeze", "total", "visc"),
    "cassava_ikeogu2017": ("dmc_oven", "tcc"),
    "tablets_idrc2002_2instruments": ("assay", "weight", "hardness"),
    "soil_wallonia_nirsoil": ("total_n", "organic_c", "cec"),
    "dough_biscuit": ("fat", "sucrose", "flour", "water"),
    "forage_ibf_neospectra": ("crude_protein_pct", "adf_pct", "ndf_pct", "dry_matter_pct"),
    "tecator_meat": ("water", "fat", "protein"),
    "tablets_escitalopram": ("active_ww",),
}
SIMULATED, MIXTURES = 8, 400  # simulated databases, and the spectra of each
SHARE_SIMULATED = 0.3  # of the steps
# In units of a database's usual sd along the bands, except for stray light.
NUISANCES = "scatter 0.05, offset 0.05, slope 0.05, curvature 0.02, noise 0.001"
STRAY = "stray 0.001"
BATCH, LEARNING_RATE = 64, 1e-3
REFERENCE_ROWS = 128
HIDDEN, RUN = 0.4, 3  # share of the patches that are hidden, in runs
MIN_PATCHES, TRIES = 3, 10


@dataclass(frozen=True)
class Design:
    """What is tried."""

    contrast: bool = True
    masked: bool = True
    treatment: str = "slopes"
    pool: str = "gated"
    steps: int = 300


DESIGNS = {
    "both": Design(),
    "contrast": Design(masked=False),
    "masked": Design(contrast=False),  # what is read from the tokens stays random
    "raw": Design(treatment="raw"),
    "summary": Design(pool="summary"),
    "snv": Design(treatment="snv slopes"),
    "masked raw": Design(contrast=False, treatment="raw"),
    "masked long": Design(contrast=False, steps=3000),
    "contrast long": Design(masked=False, steps=1500),
}


# --- databases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Database:
    """Spectra in absorbance, or what serves as such, by object.

    Attributes:
        level: the usual sd along the bands. values: (n, k), of the laboratory or of the simulation; NaN where unknown.
    """

    spectra: Unlabeled
    axis: Axis
    level: float
    values: np.ndarray

    @classmethod
    def of(
        cls, spectra: np.ndarray, axis: Axis, objects: Any = None, condition: Any = None, values: Any = None
    ) -> Database:
        n = len(spectra)
        codes = np.arange(n) if objects is None else np.unique(objects, return_inverse=True)[1]
        under = np.zeros(n, np.int64) if condition is None else np.unique(condition, return_inverse=True)[1]
        unlabeled = Unlabeled(spectra.astype(np.float32), codes, under.astype(np.int64), np.ones(n, bool))
        known = np.empty((n, 0)) if values is None else np.asarray(values, np.float64)
        return cls(unlabeled, axis, float(np.median(spectra.std(axis=1))), known)


def absorbances(name: str, where: dict[str, str] | None = None) -> Any:
    """A recorded table, its spectra in absorbance."""
    table = read_table(DATA / f"{name}.parquet", where=where or {})
    if name in FULL_SCALE:
        share = np.clip(np.asarray(table.spectra, np.float64) / FULL_SCALE[name], 1e-4, None)
        table = replace(table, spectra=-np.log10(share))
    return table


@cache
def database(name: str) -> Database:
    if name == "fermentation":
        from chemotools.datasets import load_fermentation_test

        spectra = load_fermentation_test()[0]
        return Database.of(spectra.to_numpy(), Axis(np.array(spectra.columns, float), "raman"))
    table = absorbances(name)
    good = np.isfinite(table.spectra).all(axis=1)
    objects = condition = None
    if name in OBJECT:
        objects = np.array([text.split("_")[0] if "forage" in name else text for text in table.columns["sample_id"]])
        condition = table.columns[OBJECT[name]]
        objects, condition = objects[good], condition[good]
    values = np.column_stack([table.columns[column][good] for column in VALUES[name]]) if name in VALUES else None
    return Database.of(np.asarray(table.spectra)[good], table.axis, objects, condition, values)


@cache
def simulated(seed: int) -> Database:
    """Mixtures of a few components, by Beer-Lambert or, every second one, linear in reflectance.

    Components are random absorption bands, or (every fourth database) polymers with water; linear mixtures are of
    earthlib's materials.
    """
    rng = np.random.default_rng((7, seed))
    linear, earth = seed % 2 == 1, database("earthlib_materials")
    axis = earth.axis if linear else Axis(np.arange(700.0, 2501.0, 3.0), "nm")
    nm = axis.values
    if linear:
        pure = earth.spectra.spectra[rng.choice(len(earth.spectra), 6, replace=False)].astype(np.float64)
    elif seed % 4 == 2:
        pure = np.concatenate([*polymers(nm).values(), band_spectrum(WATER, nm)[None]])
    else:
        bands = zip(
            rng.uniform(700, 2600, 40), np.exp(rng.uniform(2.3, 4.1, 40)), rng.exponential(0.3, 40), strict=True
        )
        pure = np.array([band_spectrum((*some,), nm) for some in np.array_split(np.array(list(bands)), 5)])
    shares = rng.dirichlet(np.ones(len(pure)), MIXTURES)
    spectra = -np.log10(shares @ 10.0**-pure) if linear else shares @ pure
    along = np.linspace(-1, 1, len(nm))
    path = np.exp(rng.normal(0, 0.1, (MIXTURES, 1)))
    tilt = rng.normal(0, 0.03, (MIXTURES, 2)) @ np.array([along, along**2])
    return Database.of(path * spectra + rng.normal(0.2, 0.05, (MIXTURES, 1)) + tilt, axis, values=shares)


def databases(fold: str) -> tuple[list[Database], list[Database]]:
    """All recorded ones but those that the fold leaves out, and the simulated ones."""
    left_out = FOLDS[fold]
    names = [*OTHERS, *(name for those in FOLDS.values() for name in those if name not in left_out)]
    return [database(name) for name in names], [simulated(i) for i in range(SIMULATED)]


# --- sensors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sensor:
    """Where it believes its bands to be, what it reads of a finer spectrum (bands, bands'), and its fixed error."""

    axis: Axis
    reads: np.ndarray
    error: np.ndarray  # (bands',), in units of a database's level

    def measure(self, spectra: np.ndarray, level: float) -> np.ndarray:
        return spectra @ self.reads + level * self.error


def sensor(
    axis: Axis,
    rng: np.random.Generator,
    bands: int | None = None,
    share: float | None = None,
    wide: float | None = None,
) -> Sensor:
    """Random centres, widths, range, shift, cuts and gain; or so many bands on so much of the middle of the axis.

    Args:
        wide: full width of a band at half maximum, over the distance between bands.
    """
    x, is_random = axis.values, bands is None
    low, span = x.min(), np.ptp(x)
    apart = span / (len(x) - 1)
    if share is None:
        share = rng.uniform(0.4, 1.0)
        low += rng.uniform(0, 1 - share) * span
    else:
        low += (1 - share) / 2 * span
    if bands is None:
        bands = int(np.exp(rng.uniform(np.log(40), np.log(400))))
    bands = min(bands, int(share * len(x)))
    centre, step = np.linspace(low, low + share * span, bands, retstep=True)
    if is_random:
        centre = np.clip(centre + rng.uniform(-0.3, 0.3, bands) * step, x.min(), x.max())
        if rng.random() < 0.3:
            first, run = rng.integers(bands), rng.integers(bands // 10, bands // 5 + 1)
            centre = np.delete(centre, slice(first, min(first + run, bands - 20)))
    width = max((wide or rng.uniform(1, 2)) * step, apart)
    true = centre + rng.normal(0, 0.2) * apart
    seen = np.exp(-4 * np.log(2) * ((x[:, None] - true) / width) ** 2)  # (bands, bands')
    along = np.pi * (centre - centre[0]) / np.ptp(centre)
    error = 0.02 * rng.normal(size=4) @ np.cos(np.arange(4)[:, None] * along)
    return Sensor(Axis(centre, axis.unit), seen / seen.sum(axis=0), error)


# --- training ---------------------------------------------------------------------------------------------------------


def pretrained(fold: str, name: str, seed: int) -> SpectralTransformer:
    """Trained on all databases but the fold's own; read from build/any_axis if it was trained before."""
    design = DESIGNS[name]
    kept = ROOT / "build" / "any_axis" / f"{name}-{fold}-{seed}-{design.steps}.safetensors"
    network = untrained(name, seed)
    if kept.exists():
        network.load_state_dict(load_file(kept))
        return network.eval()
    trained = _train(network, design, databases(fold), seed)
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_file(trained.state_dict(), kept, metadata={key: str(value) for key, value in asdict(design).items()})
    return trained.eval()


def untrained(name: str, seed: int) -> SpectralTransformer:
    design = DESIGNS[name]
    with torch_randomness(seed, torch.device("cpu")):
        return SpectralTransformer(treatment=design.treatment, pool=design.pool).eval()


def _train(
    network: SpectralTransformer, design: Design, pool: tuple[list[Database], list[Database]], seed: int
) -> SpectralTransformer:
    rng = np.random.default_rng((seed, 1))
    generator = torch.Generator().manual_seed(seed)
    with torch_randomness(seed, torch.device("cpu")):
        averaged = SpectralTransformer(treatment=design.treatment, pool=design.pool)
        averaged.load_state_dict(network.state_dict())
        objective, decoder = Objective("nt-xent", network.width, 0), nn.Linear(len(network.summary), ORDERS)
    parameters = [*network.parameters(), *objective.parameters(), *decoder.parameters()]
    sizes = np.sqrt([len(one.spectra) for one in pool[0]])

    def loss_of() -> Tensor:
        if rng.random() < SHARE_SIMULATED:
            source = pool[1][rng.integers(len(pool[1]))]
        else:
            source = pool[0][rng.choice(len(pool[0]), p=sizes / sizes.sum())]
        objects = source.spectra.batch(BATCH, rng)
        embedded, loss = [], torch.zeros(())
        for rows in source.spectra.pair(objects, rng):
            values, axis, reference = view(network, source, rows, rng, generator)
            c, patches = network.coefficients(values, axis, reference)
            hidden = _hidden(len(c), c.shape[1], generator) if design.masked and not embedded else None
            x = network.tokens(c, patches, hidden)
            embedded.append(network.pooled(x, patches))
            if hidden is not None:
                loss = loss + F.smooth_l1_loss(decoder(x[:, 1:])[hidden], c[hidden])
            if not design.contrast:
                break
        if design.contrast:
            loss = loss + objective(nn.Identity(), *embedded, torch.from_numpy(objects), generator)
        return loss

    minimise(loss_of, parameters, network, averaged, design.steps)
    return averaged


def minimise(
    loss_of: Callable[[], Tensor],
    parameters: Sequence[nn.Parameter],
    network: nn.Module,
    averaged: nn.Module,
    steps: int,
) -> None:
    """Trains the parameters; `averaged` gets the mean of the network's last weights. Raises FloatingPointError."""
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_up_then_cosine(steps))
    losses = []
    for step in range(steps):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average(averaged, network, step)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"step {step}: the loss is {losses[-1]}")
        if (step + 1) % 100 == 0:
            print(f"  step {step + 1}: loss {np.mean(losses[-100:]):.3f}", flush=True)


def view(
    network: SpectralTransformer,
    source: Database,
    rows: np.ndarray,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, Axis, Reference]:
    """The rows as a random sensor measures them, and the database's usual spectrum as that sensor could know it."""
    usual = torch.from_numpy(source.spectra.spectra[rng.choice(len(source.spectra), REFERENCE_ROWS)])
    for attempt in range(TRIES + 1):  # the last one covers all of the axis
        whole = {"bands": len(source.axis) // 2, "share": 1.0} if attempt == TRIES else {}
        drawn = sensor(source.axis, rng, **whole)
        with suppress(AxisMismatch):
            reference = network.reference(usual, source.axis, drawn.axis)
            if len(reference.patches) >= MIN_PATCHES or attempt == TRIES:
                break
    spectra = source.spectra.spectra[rows]
    if spectra.min() > -0.5 and spectra.max() < 3:  # absorbances, as far as stray light goes
        spectra = Augmentation.parse(STRAY)(torch.from_numpy(spectra), generator).numpy()
    measured = drawn.measure(spectra, source.level) / source.level
    noisy = Augmentation.parse(NUISANCES, drawn.axis)(torch.from_numpy(measured.astype(np.float32)), generator)
    return noisy * source.level, drawn.axis, reference


def _hidden(rows: int, patches: int, generator: torch.Generator) -> Tensor:
    """(rows, patches) bool, in runs, at least one"""
    drawn = torch.rand(rows, -(-patches // RUN), generator=generator)
    hidden = (drawn < HIDDEN) | (drawn == drawn.min(dim=1, keepdim=True).values)
    return hidden.repeat_interleave(RUN, dim=1)[:, :patches]
