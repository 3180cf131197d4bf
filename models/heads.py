"""The committee: PLS, ridge and Gaussian processes under several pre-treatments, for when labels are few."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .applicability_domain import ApplicabilityDomain
from .axis import MOST_BANDS, Axis
from .classes import Folds
from .classifier import Indicators
from .pls import folds_of, weighted_pls
from .preprocess import Pipeline


class Member(NamedTuple):
    """What one member looks at, and how it learns: a row here is all that a new member takes."""

    kind: str
    treatment: str

    @property
    def name(self) -> str:
        return f"{self.kind}: {self.treatment}"


# Chosen on twelve responses of other sets than the benchmark's, at 30 and 100 labels: scatter left in, scatter taken
# out, first and second derivative, with and without autoscaling. More rows gained less than a hundredth.
_LINEAR = (
    "autoscale",
    "snv, detrend 2",
    "snv, savgol 15 2 1",
    "savgol 15 2 1, autoscale",
    "savgol 25 2 2, autoscale",
)
MEMBERS = (
    *(Member("pls", treatment) for treatment in _LINEAR),
    *(Member("ridge", treatment) for treatment in _LINEAR),
    Member("gp", "snv, savgol 15 2 1"),
    Member("gp", "savgol 25 2 2, autoscale"),
)
EMBEDDED = (Member("ridge", "encoder"), Member("gp", "encoder"))  # join where there is an encoder
CLASS_TREATMENT = "snv, savgol 15 2 1"  # of the members', the one in which distances from a class are taken
FEWEST_SPECTRAL_BANDS = 15  # below, features are no spectrum: scatter corrections would take away most of what is there
MOST_COMPONENTS = 20
PENALTIES = np.logspace(-9, 0, 19)  # of ridge, over the sum of squares of the centred spectra
LENGTHS = np.geomspace(0.6, 4.2, 5)  # of the Gaussian process, in root mean square distances from the mean spectrum
LINEAR_SHARES = (1.0, 10.0)  # of its linear kernel, over the radial one
NOISES = np.logspace(-5, 1, 13)  # variance of noise over signal
MOST_ANCHORS = 1_000  # spectra that a Gaussian process keeps: 8 MB of covariance; PLS and ridge use all
MOST_FOR_LIKELIHOOD = 300  # spectra that choose its kernel: ten eigendecompositions, 0.02 s each
_FLOOR = 1e-12  # of a variance, in units of the target's
_BLOCK = 1024  # spectra whose intervals are sought together


@dataclass
class Linear:
    """Coefficients on a treated spectrum, in column 0 of all training spectra, in column k without fold k.

    Attributes:
        coef: (bands, 1 + folds). offset: (1 + folds,).
    """

    coef: np.ndarray
    offset: np.ndarray

    def predict(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, 1 + folds)"""
        return Z @ self.coef + self.offset


@dataclass
class Process:
    """A Gaussian process: radial plus linear kernel, and noise; columns as in `Linear`.

    Attributes:
        centre: (bands,). anchors: (m, bands), training spectra less the centre, times scale.
        kernel: (5,): scale, length, linear share, noise over signal, signal variance.
        coef: (m, 1 + folds). offset: (1 + folds,). inverse: (m, m), of the anchors' kernel matrix with noise.
    """

    centre: np.ndarray
    anchors: np.ndarray
    kernel: np.ndarray
    coef: np.ndarray
    offset: np.ndarray
    inverse: np.ndarray

    def _covariance(self, Z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> with the anchors (n, m), and each spectrum's own with noise (n,), over the signal's variance"""
        scale, length, share, noise, _ = self.kernel
        U = (Z - self.centre) * scale
        return _kernel(U, self.anchors, length, share), 1 + share * np.einsum("nb,nb->n", U, U) + noise

    def predict(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, 1 + folds)"""
        return self._covariance(Z)[0] @ self.coef + self.offset

    def variance(self, Z: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n,), of a new measured value"""
        across, own = self._covariance(Z)
        return self.kernel[4] * np.maximum(
            own - np.einsum("nm,mk,nk->n", across, self.inverse, across, optimize=True), 0
        )


# What a kind's fit returns: the model, its out-of-fold predictions (n,), and their variances (n,) where it knows them.
Fitted = tuple[Linear | Process, np.ndarray, np.ndarray | None]
Path = tuple[np.ndarray, float, np.ndarray]  # mean spectrum, mean value, coefficients (bands, A) of a whole path


def _pls_path(Z: np.ndarray, y: np.ndarray, most: int) -> Path:
    """1, 2, ... latent variables."""
    fit = weighted_pls(Z, y[:, None], min(MOST_COMPONENTS, most))
    return fit.x_mean, float(fit.y_mean[0]), np.cumsum(fit.rotations * fit.y_loadings[0], axis=1)


def ridge_path(Z: np.ndarray, y: np.ndarray, most: int) -> Path:
    """Every penalty from one eigendecomposition, of whichever is smaller: bands by bands, or spectra by spectra."""
    mean, y_mean = Z.mean(axis=0), float(y.mean())
    C, tall = Z - mean, len(Z) > Z.shape[1]
    roots, vectors = np.linalg.eigh(C.T @ C if tall else C @ C.T)
    roots = np.maximum(roots, 0)
    along = vectors.T @ (C.T @ (y - y_mean) if tall else y - y_mean)
    solved = vectors @ (along[:, None] / (roots[:, None] + PENALTIES * (roots.sum() or 1.0)))
    return mean, y_mean, solved if tall else C.T @ solved


def _fit_linear(
    path: Callable[[np.ndarray, np.ndarray, int], Path], Z: np.ndarray, y: np.ndarray, folds: Folds
) -> Fitted:
    """Fits the whole path on all rows and without each fold; takes the step with the least cross-validated error."""
    most = min(Z.shape[1], min(len(rows) for rows, _ in folds) - 1)
    whole = path(Z, y, most)
    parts = [path(Z[rows], y[rows], most) for rows, _ in folds]
    out = np.empty((len(y), whole[2].shape[1]))
    for (_, held_out), (mean, y_mean, coef) in zip(folds, parts, strict=True):
        out[held_out] = (Z[held_out] - mean) @ coef + y_mean
    best = int(((out - y[:, None]) ** 2).mean(axis=0).argmin())
    coef = np.column_stack([coefs[:, best] for _, _, coefs in (whole, *parts)])
    offset = np.array([y_mean - mean @ coefs[:, best] for mean, y_mean, coefs in (whole, *parts)])
    return Linear(coef, offset), out[:, best], None


def _fit_process(Z: np.ndarray, y: np.ndarray, folds: Folds, order: np.ndarray) -> Fitted:
    """Kernel by marginal likelihood; `order` (n,) says which spectra become anchors.

    References: Rasmussen & Williams, Gaussian Processes for Machine Learning (2006), 2.2 and 5.4.
    """
    from scipy.linalg import cho_factor, cho_solve

    centre = Z.mean(axis=0)
    scale = 1 / np.sqrt(max(np.mean(np.sum((Z - centre) ** 2, axis=1)), np.finfo(np.float64).tiny ** 0.5))
    U, anchors = (Z - centre) * scale, np.sort(order[:MOST_ANCHORS])
    length, share, noise = _likeliest(U[order[:MOST_FOR_LIKELIHOOD]], y[order[:MOST_FOR_LIKELIHOOD]])
    K = _kernel(U, U[anchors], length, share)  # (n, m)
    own = 1 + share * np.einsum("nb,nb->n", U, U) + noise
    coef, offset = np.zeros((len(anchors), 1 + len(folds))), np.zeros(1 + len(folds))
    out, variance = np.empty(len(y)), np.empty(len(y))
    everything = np.arange(len(y))
    signal, inverse = 0.0, np.empty(0)
    for k, (rows, held_out) in enumerate([(everything, everything[:0]), *folds]):
        kept = np.isin(anchors, rows)
        known = y[anchors[kept]]
        factor = cho_factor(K[np.ix_(anchors[kept], kept)] + noise * np.eye(kept.sum()), lower=True)
        offset[k] = known.mean()
        coef[kept, k] = cho_solve(factor, known - offset[k])
        if k == 0:
            inverse = cho_solve(factor, np.eye(len(anchors)))
            signal = max(float((known - offset[0]) @ coef[:, 0] / len(known)), _FLOOR)
            continue
        across = K[np.ix_(held_out, kept)]
        out[held_out] = across @ coef[kept, k] + offset[k]
        variance[held_out] = own[held_out] - np.einsum("nm,mn->n", across, cho_solve(factor, across.T))
    kernel = np.array([scale, length, share, noise, signal])
    return Process(centre, U[anchors], kernel, coef, offset, inverse), out, signal * np.maximum(variance, 0)


def _kernel(U: np.ndarray, V: np.ndarray, length: float, share: float) -> np.ndarray:
    """(n, bands), (m, bands) -> (n, m): exp(-d^2 / 2 length^2) + share * u.v"""
    inner = U @ V.T
    squares = np.einsum("nb,nb->n", U, U)[:, None] + np.einsum("mb,mb->m", V, V) - 2 * inner
    return np.exp(-np.maximum(squares, 0) / (2 * length**2)) + share * inner


def _likeliest(U: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Length, linear share and noise of the greatest marginal likelihood; the signal's variance is profiled out."""
    best = (np.inf, 0.0, 0.0, 0.0)
    for length in LENGTHS:
        for share in LINEAR_SHARES:
            roots, vectors = np.linalg.eigh(_kernel(U, U, length, share))
            spread = np.maximum(roots, 0)[:, None] + NOISES  # (n, noises)
            power = ((vectors.T @ (y - y.mean())) ** 2)[:, None]
            loss = len(y) * np.log(np.maximum((power / spread).mean(axis=0), _FLOOR)) + np.log(spread).sum(axis=0)
            i = int(loss.argmin())
            best = min(best, (float(loss[i]), float(length), share, float(NOISES[i])))
    return best[1:]


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, Folds, np.ndarray], Fitted]] = {
    "pls": lambda Z, y, folds, order: _fit_linear(_pls_path, Z, y, folds),
    "ridge": lambda Z, y, folds, order: _fit_linear(ridge_path, Z, y, folds),
    "gp": _fit_process,
}


def member_weights(out: np.ndarray, y: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
    """Weights (members,), none negative, summing to 1, from out-of-fold predictions (n, members) of y (n,).

    Least squares with the prior that each weight is `prior`, give or take as much again, by the error variance of the
    mean so weighted; 1 / members where None. Thirty labels hardly move it; hundreds overrule it.

    References: Breiman, Machine Learning 24 (1996) 49-64, doi 10.1007/BF00117832 (stacking with weights >= 0).
    """
    from scipy.optimize import nnls

    prior = np.full(out.shape[1], 1 / out.shape[1]) if prior is None else prior
    plain = out @ prior
    error = np.sqrt(max(float(np.mean((plain - y) ** 2)), _FLOOR))
    # As the weights sum to 1, the mean can be taken off both sides; the heavy last row makes them do so.
    heavy = 1e3 * np.sqrt((error / prior.min()) ** 2 + np.sum((out - plain[:, None]) ** 2))
    left = np.vstack([out - plain[:, None], np.diag(error / prior), np.full((1, len(prior)), heavy)])
    right = np.concatenate([y - plain, np.full(len(prior), error), [heavy]])
    weights, _ = nnls(left, right)
    return weights / weights.sum()


def _prior(out: np.ndarray, y: np.ndarray, members: list[Member]) -> np.ndarray:
    """(members,), summing to 1: alike, but an encoder's members less by how much worse than the others they are.

    An encoder may know nothing of the target, and where labels are few the stacking would not find out in time. The
    share falls steeply, to a half where the RMSE is a tenth above the usual: chosen on training rows.
    """
    errors = np.mean((out - y[:, None]) ** 2, axis=0)
    usual = np.median([error for member, error in zip(members, errors, strict=True) if member not in EMBEDDED])
    shares = [
        np.clip((usual / max(error, _FLOOR)) ** 4, 1e-3, 1.0) if member in EMBEDDED else 1.0
        for member, error in zip(members, errors, strict=True)
    ]
    return np.array(shares) / np.sum(shares)


class CommitteeRegressor(RegressorMixin, BaseEstimator):
    """A weighted mean of PLS and ridge under several pre-treatments and of Gaussian processes: for few labels.

    One cross-validation serves three ends: it chooses latent variables and penalties, it weighs the members
    (`member_weights`), and it calibrates the intervals. Members whose pre-treatment does not fit
    the bands are left out.

    A prediction's sd joins the processes' variance with the disagreement of the members, in a proportion to the
    out-of-fold errors that makes these, standardised, have a mean square of 1.

    Args:
        encoder: an `encoder.Encoder` pretrained on the grid of these spectra, whose embeddings more members look at.
        folds: of the cross-validation; samples that share a `group` stay in one fold.
        random_state: of the folds, and of which spectra a process keeps where there are more than 1,000.

    Attributes:
        members_: the members used. weights_: (targets, members). rmsecv_: (targets,), out of fold, in the target's
            unit; a little hopeful, since penalties and weights were chosen on the same folds.
        unseen_: (n, targets), what was predicted of each training spectrum out of its fold.
        domain_: T2 and Q of the principal components of the training spectra.

    References:
        Intervals, CV+: Barber, Candes, Ramdas & Tibshirani, Ann. Statist. 49 (2021) 486-507, doi 10.1214/20-AOS1965.
    """

    kind: ClassVar[str] = "committee"
    n_features_in_: int

    def __init__(self, *, encoder: Any = None, folds: int = 10, random_state: int = 0) -> None:
        self.encoder = encoder
        self.folds = folds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) or (n, targets), groups (n,) or None.

        Raises:
            ValueError: NaN or infinite values, fewer than 3 spectra, 2 bands or 2 groups, a parameter out of its range.
        """
        if not isinstance(self.folds, int | np.integer) or self.folds < 2:
            raise ValueError(f"folds must be a whole number of at least 2, got {self.folds!r}")
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=3, ensure_min_features=2
        )
        self.y_ndim_ = np.ndim(y)
        Y = np.asarray(y, np.float64).reshape(len(X), -1)
        folds = list(folds_of(len(X), self.folds, self.random_state, groups))
        if min(len(rows) for rows, _ in folds) < 2:
            raise ValueError(f"cross-validation needs at least 2 training spectra in each fold, got {len(X)} in all")
        self._fold = np.empty(len(X), np.int64)  # column of `predict_members` that has not seen the sample
        for k, (_, held_out) in enumerate(folds, start=1):
            self._fold[held_out] = k
        treated = self._treat(X)
        constant = np.ptp(Y, axis=0) == 0
        self.y_mean_, self.y_sd_ = np.where(constant, Y[0], Y.mean(axis=0)), np.where(constant, 1.0, Y.std(axis=0))
        order = np.random.default_rng(self.random_state).permutation(len(X))
        self._models: list[list[Linear | Process]] = []  # of each target, of each member
        weights, spreads, scores, errors, unseen = [], [], [], [], []
        for target in ((Y - self.y_mean_) / self.y_sd_).T:
            fitted = [KINDS[m.kind](treated[m.treatment], target, folds, order) for m in self.members_]
            self._models.append([model for model, _, _ in fitted])
            out = np.column_stack([predicted for _, predicted, _ in fitted])  # (n, members)
            weights.append(member_weights(out, target, _prior(out, target, self.members_)))
            error = np.abs(out @ weights[-1] - target)
            sd = _spread(out, weights[-1], [variance for _, _, variance in fitted if variance is not None])
            spreads.append(np.sqrt(np.mean((error / sd) ** 2)))
            scores.append(error / sd)
            errors.append(np.sqrt(np.mean(error**2)))
            unseen.append(out @ weights[-1])
        self.weights_, self._spreads, self._scores = np.array(weights), np.array(spreads), np.array(scores)
        self.rmsecv_ = np.array(errors) * self.y_sd_
        self.unseen_ = np.array(unseen).T * self.y_sd_ + self.y_mean_
        self.domain_ = ApplicabilityDomain.principal(X)
        return self

    def _treat(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """Fits the pre-treatments that these bands allow, and settles who the members are."""
        self._treatments: dict[str, Pipeline] = {}
        treated: dict[str, np.ndarray] = {}
        for text in dict.fromkeys(member.treatment for member in MEMBERS):
            if X.shape[1] < FEWEST_SPECTRAL_BANDS and text != "autoscale":
                continue
            pipeline = Pipeline.parse(text)
            try:
                treated[text] = pipeline.fit(X, _axis(X))
            except ValueError:  # a window wider than the spectrum
                continue
            self._treatments[text] = pipeline
        self.members_ = [member for member in MEMBERS if member.treatment in treated]
        if self.encoder is not None:
            treated["encoder"] = self.encoder.embed(X)
            self.members_ += EMBEDDED
        return treated

    def _outputs(self, X: Any, *, spread: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> the committee's means (targets, n, 1 + folds) and sd (targets, n), in sd of each target."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        treated = {text: pipeline.transform(X, _axis(X)) for text, pipeline in self._treatments.items()}
        if self.encoder is not None:
            treated["encoder"] = self.encoder.embed(X)
        means, sds = [], []
        for models, weights, factor in zip(self._models, self.weights_, self._spreads, strict=True):
            inputs = [treated[member.treatment] for member in self.members_]
            every = np.stack(
                [model.predict(Z) for model, Z in zip(models, inputs, strict=True)]
            )  # (members, n, 1 + folds)
            means.append(np.einsum("m,mnk->nk", weights, every))
            if spread:
                pairs = zip(models, inputs, strict=True)
                variances = [model.variance(Z) for model, Z in pairs if isinstance(model, Process)]
                sds.append(factor * _spread(every[:, :, 0].T, weights, variances))
        return np.array(means), np.array(sds)

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """(targets, n) -> (n,) or (n, targets), as y was"""
        values = values.T * self.y_sd_ + self.y_mean_
        return values[:, 0] if self.y_ndim_ == 1 else values

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """(n, bands) -> (n,) or (n, targets), as y was; with `return_std` also their sd, of the same shape and unit."""
        means, sds = self._outputs(X, spread=return_std)
        values = self._in_units(means[:, :, 0])
        if not return_std:
            return values
        sds = sds.T * self.y_sd_
        return values, sds[:, 0] if self.y_ndim_ == 1 else sds

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> low and high, each shaped as `predict` gives, that hold a share `level` of new measured values.

        CV+ (Barber et al. 2021), its residuals divided by the sd, so that intervals widen where the model knows less.
        Its guarantee for exchangeable samples is 2 level - 1, less a little; in practice coverage is close to `level`.
        With fewer than level / (1 - level) samples (9 for 90 %) nothing finite can be said: both are infinite.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level!r}")
        means, sds = self._outputs(X, spread=True)
        n = self._scores.shape[1]
        tail = int(np.floor((1 - level) * (n + 1) + 1e-9))
        low, high = np.full(sds.shape, -np.inf), np.full(sds.shape, np.inf)
        for t in range(len(sds)) if tail else ():
            for at in (slice(start, start + _BLOCK) for start in range(0, sds.shape[1], _BLOCK)):
                centre = means[t, at][:, self._fold]  # (block, n)
                half = self._scores[t] * (sds[t, at] / (self._spreads[t] or 1.0))[:, None]
                low[t, at] = np.partition(centre - half, tail - 1, axis=1)[:, tail - 1]
                high[t, at] = np.partition(centre + half, n - tail, axis=1)[:, n - tail]
        return self._in_units(low), self._in_units(high)

    @property
    def class_treatment(self) -> Pipeline | None:
        """What distances from a class are taken in; None where bands are too few."""
        return self._treatments.get(CLASS_TREATMENT)

    def class_space(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, bands), treated so"""
        return X if self.class_treatment is None else self.class_treatment.transform(X, _axis(X))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that a fitted committee needs to predict, for the bundle."""
        spec = json.dumps([list(member) for member in self.members_])
        kept = {
            "members": np.frombuffer(spec.encode(), np.uint8),
            **{name: getattr(self, name) for name in _KEPT},
            **{name: getattr(self, f"_{name}") for name in _KEPT_INSIDE},
            "y_ndim": np.array(self.y_ndim_),
            "bands": np.array(self.n_features_in_),
            **self.domain_.arrays(),
        }
        for i, pipeline in enumerate(self._treatments.values()):
            kept |= {f"treatment.{i}.{name}": array for name, array in pipeline.arrays().items()}
        for t, models in enumerate(self._models):
            for m, model in enumerate(models):
                kept |= {f"member.{t}.{m}.{f.name}": getattr(model, f.name) for f in fields(model)}
        if self.encoder is not None:
            kept |= self.encoder.arrays()
        return {name: np.ascontiguousarray(array) if np.ndim(array) else array for name, array in kept.items()}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = cls(**params)
        if "encoder.about" in arrays:
            from .encoder import Encoder

            model.encoder = Encoder.from_arrays(arrays)
        model.members_ = [Member(*row) for row in json.loads(arrays["members"].tobytes())]
        for name in _KEPT:
            setattr(model, name, arrays[name])
        for name in _KEPT_INSIDE:
            setattr(model, f"_{name}", arrays[name])
        model.y_ndim_, model.n_features_in_ = int(arrays["y_ndim"]), int(arrays["bands"])
        if model.n_features_in_ > MOST_BANDS:
            raise ValueError(f"expected at most {MOST_BANDS} bands, got {model.n_features_in_}")
        grid = Axis(np.arange(model.n_features_in_), "index")
        model._treatments = {}
        texts = dict.fromkeys(member.treatment for member in model.members_ if member not in EMBEDDED)
        for i, text in enumerate(texts):
            start = f"treatment.{i}."
            learned = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
            model._treatments[text] = Pipeline.from_json(Pipeline.parse(text).to_json(), grid, learned)
        shapes = [Process if member.kind == "gp" else Linear for member in model.members_]
        model._models = [
            [
                kind(**{f.name: arrays[f"member.{t}.{m}.{f.name}"] for f in fields(kind)})
                for m, kind in enumerate(shapes)
            ]
            for t in range(len(model.weights_))
        ]
        model.domain_ = ApplicabilityDomain.from_arrays(arrays)
        return model


class CommitteeClassifier(Indicators, CommitteeRegressor):
    """The committee on class indicators; its own cross-validation tells what it makes of unseen spectra."""

    kind = "committee-da"

    def _unseen_scores(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, folds: Folds) -> np.ndarray:
        return self.unseen_

    def _space(self, X: np.ndarray) -> np.ndarray:
        return self.class_space(X)


_KEPT = ("weights_", "rmsecv_", "y_mean_", "y_sd_")
_KEPT_INSIDE = ("fold", "spreads", "scores")


def _axis(X: np.ndarray) -> Axis:
    """Positions: which bands an array's columns are, an estimator is not told."""
    return Axis(np.arange(X.shape[1]), "index")


def _spread(every: np.ndarray, weights: np.ndarray, variances: list[np.ndarray]) -> np.ndarray:
    """(n,): members' predictions (n, members) and processes' variances, each (n,), joined to an uncalibrated sd."""
    apart = ((every - (every @ weights)[:, None]) ** 2) @ weights
    known = np.mean(variances, axis=0) if variances else 0.0
    return np.sqrt(apart + known + _FLOOR)
