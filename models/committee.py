"""The committee: PLS, ridge and Gaussian processes under several pre-treatments, for when labels are few."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Self

import numpy as np
from sklearn.utils import gen_batches

from .. import require_learn
from .applicability_domain import ApplicabilityDomain
from .axis import MAX_BANDS, Axis
from .classifier import Indicators
from .committee_members import EMBEDDED, KINDS, MEMBERS, Fitted, Linear, Member, member_weights, weights_by_error
from .cross_validation import Folds, folds_of
from .estimator import Regressor
from .gaussian_process import MIN_VARIANCE, GaussianProcess, fit_segments
from .preprocess import Pipeline, through
from .several_sensors import OF_ALL, OUTLIERS, SHARED, TOGETHER, sensors_axis, spans, treatment
from .tensors import below

OUTLIER_TREATMENT = "snv, savgol 15 2 1"  # the members' pre-treatment in which T2, Q, distances from a class are taken
MIN_SPECTRAL_BANDS = 15  # fewer features are no spectrum: scatter corrections would remove most of their information
EXAMPLES = 16  # training spectra that a bundle keeps, to try a compiled model on
_BLOCK = 1024  # spectra whose intervals are computed together


@dataclass(eq=False, repr=False)
class CommitteeRegressor(Regressor):
    """A weighted mean of PLS and ridge under several pre-treatments and of Gaussian processes: for few labels.

    One cross-validation serves three ends: it chooses latent variables and penalties, it weighs the members
    (`member_weights`), and it calibrates the intervals. A member whose pre-treatment does not
    fit the bands is left out.

    A prediction's sd joins the processes' variance with the disagreement of the members, scaled so that the
    standardised out-of-fold errors have a mean square of 1.

    Of several sensors, each has all members; others use the sensors' numbers side by side, and what they have in
    common.

    Args:
        encoder: an `encoder.Encoder` pretrained on the grid of these spectra; it adds members that use its embeddings.
        blocks: of several sensors, how many bands each has, one after the other in a row; None for a single one.
        shared: what `several_sensors.learn_shared` learned of them from unlabeled spectra; if it is None, the spectra
            that the committee is fitted on must do.
        folds: of the cross-validation; samples that share a `group` stay in one fold.
        random_state: of the folds, and of which spectra a process keeps where there are more than 1,000.

    Attributes:
        members_: the members used. weights_: (targets, members). rmsecv_: (targets,), out of fold, in the target's
            unit; slightly optimistic, since penalties and weights were chosen on the same folds.
        unseen_: (n, targets), the out-of-fold predictions of the training spectra.
        domain_: T2 and Q of the principal components of the training spectra, with `outlier_treatment`.
        examples_: (k, bands), some training spectra; None where T2 and Q are those of untreated spectra, as in bundles
            up to 0.1.

    References:
        Intervals, CV+: Barber, Candes, Ramdas & Tibshirani, Ann. Statist. 49 (2021) 486-507, doi 10.1214/20-AOS1965.
    """

    kind = "committee"
    kept = ("weights_", "rmsecv_", "y_mean_", "y_sd_", "fold", "spreads", "scores", "y_ndim")

    _: KW_ONLY
    encoder: Any = None
    blocks: Sequence[int] | None = None
    shared: dict[str, Pipeline] | None = None
    folds: int = 10
    random_state: int = 0

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """X (n, bands), y (n,) or (n, targets), groups (n,) or None.

        Raises ValueError for NaN or infinite values, fewer than 3 spectra, 2 bands or 2 groups, or a wrong parameter.
        """
        self._check_whole("folds", least=2)
        X, Y = self._checked_xy(X, y, ensure_min_samples=3, ensure_min_features=2)
        folds = folds_of(len(X), self.folds, self.random_state, groups, min_training=2)
        self.fold_ = np.empty(len(X), np.int64)  # column of a member's predictions that has not seen the sample
        for k, (_, held_out) in enumerate(folds, start=1):
            self.fold_[held_out] = k
        self._fit_treatments(X)
        treated = self._treated(X)
        constant = np.ptp(Y, axis=0) == 0
        self.y_mean_, self.y_sd_ = np.where(constant, Y[0], Y.mean(axis=0)), np.where(constant, 1.0, Y.std(axis=0))
        order = np.random.default_rng(self.random_state).permutation(len(X))
        self._models: list[list[Linear | GaussianProcess]] = []  # of each target, of each member
        of_targets = []
        for target in ((Y - self.y_mean_) / self.y_sd_).T:
            fitted = [
                self._fit_member(member, treated[member.treatment], target, folds, order) for member in self.members_
            ]
            self._models.append([model for model, _, _ in fitted])
            out = np.column_stack([predicted for _, predicted, _ in fitted])  # (n, members)
            weights = member_weights(out, target, weights_by_error(out, target))
            predicted = out @ weights
            error = np.abs(predicted - target)
            scores = error / _spread(out, weights, [variance for _, _, variance in fitted if variance is not None])
            of_targets.append((weights, np.sqrt(np.mean(scores**2)), scores, np.sqrt(np.mean(error**2)), predicted))
        self.weights_, self.spreads_, self.scores_, rmse, unseen = map(np.array, zip(*of_targets, strict=True))
        self.rmsecv_ = rmse * self.y_sd_
        self.unseen_ = unseen.T * self.y_sd_ + self.y_mean_
        self.examples_ = X[np.linspace(0, len(X) - 1, min(EXAMPLES, len(X))).astype(int)]
        self.domain_ = ApplicabilityDomain.principal(self.outlier_space(X))
        return self

    def _fit_treatments(self, X: np.ndarray) -> None:
        """Fits the pre-treatments that these bands allow, and lists the members."""
        self._treatments: dict[str, Pipeline] = {}
        every = list(MEMBERS)
        if self.blocks:
            every = [Member(kind, f"{k}: {text}") for k in range(len(self.blocks)) for kind, text in MEMBERS]
            every += [Member(kind, text) for text in TOGETHER for kind in ("ridge", "gp", "segments")]
            every += [Member(kind, text) for text in SHARED for kind in ("ridge", "gp")]
            sizes = [span.stop - span.start for span in spans(self.blocks, X.shape[1])]
        for text in dict.fromkeys(member.treatment for member in every):
            sensor, colon, steps = text.rpartition(": ")
            bands = sizes[int(sensor)] if colon else X.shape[1]
            if bands >= MIN_SPECTRAL_BANDS or steps in ("autoscale", *OF_ALL):
                pipeline = self._treatment(text)
                with suppress(ValueError):  # a window wider than the spectrum
                    if text not in (self.shared or {}):
                        pipeline.fit(X, self._axis(text, X.shape[1]))
                    self._treatments[text] = pipeline
        embedded = EMBEDDED if self.encoder is not None else ()
        self.members_ = [*(member for member in every if member.treatment in self._treatments), *embedded]

    def _fit_member(self, member: Member, Z: np.ndarray, y: np.ndarray, folds: Folds, order: np.ndarray) -> Fitted:
        if member.kind == "segments" and member.treatment in TOGETHER:
            return fit_segments(Z, y, folds, order, self.blocks)
        return KINDS[member.kind](Z, y, folds, order)

    def _treatment(self, text: str) -> Pipeline:
        """That of a member, not yet fitted, unless it was learned apart."""
        if self.shared is not None and text in self.shared:
            return self.shared[text]
        return treatment(text, self.blocks) if self.blocks else Pipeline.parse(text)

    def _axis(self, text: str, bands: int) -> Axis:
        """For a treatment; an estimator does not know its columns' wavelengths."""
        is_of_all = self.blocks and text in OF_ALL
        return sensors_axis(self.blocks or ()) if is_of_all else Axis(np.arange(bands), "index")

    def _treated(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """(n, bands) -> (n, bands') of each pre-treatment, and the encoder's embeddings"""
        treated = {text: through(pipeline.steps, X) for text, pipeline in self._treatments.items()}
        return treated if self.encoder is None else {**treated, "encoder": self.encoder.embed(X)}

    def _outputs(self, X: Any, *, spread: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> the committee's means (targets, n, 1 + folds) and sd (targets, n), in sd of each target."""
        treated = self._treated(self._checked(X))
        inputs = [treated[member.treatment] for member in self.members_]
        means, sds = [], []
        for models, weights, factor in zip(self._models, self.weights_, self.spreads_, strict=True):
            pairs = list(zip(models, inputs, strict=True))
            every = np.stack([model.predict(Z) for model, Z in pairs])  # (members, n, 1 + folds)
            means.append(np.einsum("m,mnk->nk", weights, every))
            if spread:
                variances = [model.variance(Z) for model, Z in pairs if isinstance(model, GaussianProcess)]
                sds.append(factor * _spread(every[:, :, 0].T, weights, variances))
        return np.array(means), np.array(sds)

    def unseen(self, X: np.ndarray, Y: np.ndarray, groups: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        return self.unseen_[rows]

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """(targets, n) -> (n,) or (n, targets), as y was"""
        return self._as_y(values.T * self.y_sd_ + self.y_mean_)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """(n, bands) -> (n,) or (n, targets), as y was; with `return_std` also their sd, of the same shape and unit."""
        means, sds = self._outputs(X, spread=return_std)
        values = self._in_units(means[:, :, 0])
        return (values, self._as_y(sds.T * self.y_sd_)) if return_std else values

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """(n, bands) -> low and high, each shaped as `predict` gives, that hold a share `level` of new measured values.

        CV+ (Barber et al. 2021), its residuals divided by the sd, so that intervals widen where the model knows less.
        Its guarantee for exchangeable samples is 2 level - 1, less a little; in practice coverage is close to `level`.
        With fewer than level / (1 - level) samples (9 for 90 %) no finite interval has that level: both are infinite.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level!r}")
        means, sds = self._outputs(X, spread=True)
        n = self.scores_.shape[1]
        tail = int(np.floor((1 - level) * (n + 1) + 1e-9))
        low, high = np.full(sds.shape, -np.inf), np.full(sds.shape, np.inf)
        for t in range(len(sds)) if tail else ():
            for at in gen_batches(sds.shape[1], _BLOCK):
                centre = means[t, at][:, self.fold_]  # (block, n)
                half = self.scores_[t] * (sds[t, at] / (self.spreads_[t] or 1.0))[:, None]
                low[t, at] = np.partition(centre - half, tail - 1, axis=1)[:, tail - 1]
                high[t, at] = np.partition(centre + half, n - tail, axis=1)[:, n - tail]
        return self._in_units(low), self._in_units(high)

    @property
    def outlier_treatment(self) -> Pipeline:
        """The pre-treatment in which distances are taken; it is empty where bands are too few."""
        return self._treatments.get(OUTLIERS if self.blocks else OUTLIER_TREATMENT, Pipeline())

    def outlier_space(self, X: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, bands), with `outlier_treatment`"""
        return through(self.outlier_treatment.steps, X)

    def t2_q(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.domain_.t2_q(X if self.examples_ is None else self.outlier_space(X))

    @property
    def typical(self) -> np.ndarray:
        """(bands,), about the mean spectrum."""
        return self.domain_.mean if self.examples_ is None else self.examples_.mean(axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        members = json.dumps([list(member) for member in self.members_])
        made = {"members": np.frombuffer(members.encode(), np.uint8), "bands": np.array(self.n_features_in_)}
        for i, pipeline in enumerate(self._treatments.values()):
            made |= {f"treatment.{i}.{name}": array for name, array in pipeline.arrays().items()}
        for t, models in enumerate(self._models):
            for m, model in enumerate(models):
                made |= {f"member.{t}.{m}.{f.name}": getattr(model, f.name) for f in fields(model)}
        if self.examples_ is not None:
            made["domain.examples"] = self.examples_
        if self.shared is not None:
            made["learned_apart"] = np.array(True)
        return {**super().arrays(), **made, **({} if self.encoder is None else self.encoder.arrays())}

    @classmethod
    def from_arrays(cls, params: dict[str, Any], arrays: dict[str, np.ndarray]) -> Self:
        model = super().from_arrays(params, arrays)
        if "encoder.about" in arrays:
            require_learn("a committee with an encoder")
            from .encoder import Encoder

            model.encoder = Encoder.from_arrays(arrays)
        model.examples_ = arrays.get("domain.examples")
        model.members_ = [Member(*row) for row in json.loads(arrays["members"].tobytes())]
        model.n_features_in_ = int(arrays["bands"])
        if model.n_features_in_ > MAX_BANDS:
            raise ValueError(f"expected at most {MAX_BANDS} bands, got {model.n_features_in_}")
        model._treatments = {}
        texts = dict.fromkeys(member.treatment for member in model.members_ if member not in EMBEDDED)
        for i, text in enumerate(texts):
            model._treatments[text] = model._treatment(text)
            model._treatments[text].restore(below(f"treatment.{i}.", arrays), model._axis(text, model.n_features_in_))
        if "learned_apart" in arrays:
            model.shared = {text: model._treatments[text] for text in SHARED}
        shapes = [Linear if member.kind in ("pls", "ridge") else GaussianProcess.of for member in model.members_]
        model._models = [
            [shape(**below(f"member.{t}.{m}.", arrays)) for m, shape in enumerate(shapes)]
            for t in range(len(model.weights_))
        ]
        return model


class CommitteeClassifier(Indicators, CommitteeRegressor):
    """The committee on class indicators; its own cross-validation gives the out-of-fold scores."""

    kind = "committee-da"

    def _unseen_scores(self, X: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, folds: Folds) -> np.ndarray:
        return self.unseen_


def _spread(every: np.ndarray, weights: np.ndarray, variances: list[np.ndarray]) -> np.ndarray:
    """(n,): members' predictions (n, members) and processes' variances, each (n,), joined to an uncalibrated sd."""
    apart = ((every - (every @ weights)[:, None]) ** 2) @ weights
    known = np.mean(variances, axis=0) if variances else 0.0
    return np.sqrt(apart + known + MIN_VARIANCE)
