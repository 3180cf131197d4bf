"""Slope and bias of predictions against the laboratory, with the limits of ISO 12099."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ... import BadFile

MIN_SAMPLES = 5
MIN_FOR_SLOPE = 10  # a slope from fewer says little, and is used beyond their range
# sd of the values over the SEP. Errors of the predictions lower the slope of values on predictions, by about
# 1 / ratio^2: here by a tenth, on a day's production of one kind by nearly all of it.
RANGE_FOR_SLOPE = 3.0
LEVEL = 0.95


@dataclass(frozen=True)
class SlopeBias:
    """Of n samples, in the target's unit; residuals are prediction less laboratory value.

    Attributes:
        bias, bias_limit: the mean residual, and how large it may be by chance.
        sep, sep_limit: the residuals' sd less the bias, and how large it may be for the calibration's error; NaN for
            an unknown one.
        slope, intercept: of the laboratory's values on the predictions. slope_t, slope_limit: the t of slope 1.
        sd: of the laboratory's values. rest: of the residuals about that line.
        new_slope, new_bias: what is advised: value = new_bias + new_slope * prediction.
    """

    n: int
    bias: float
    bias_limit: float
    sep: float
    sep_limit: float
    slope: float
    intercept: float
    slope_t: float
    slope_limit: float
    sd: float
    rest: float

    @property
    def biased(self) -> bool:
        return abs(self.bias) > self.bias_limit

    @property
    def not_judged(self) -> str:
        """Why the slope is not; '' if it is."""
        if self.n < MIN_FOR_SLOPE:
            return f"not judged, fewer than {MIN_FOR_SLOPE} samples"
        if self.sd < RANGE_FOR_SLOPE * self.sep:
            few = f"the values' sd, {self.sd:.4g}, is below {RANGE_FOR_SLOPE:g} SEP"
            return f"not judged: {few}; take samples from the whole range"
        return ""

    @property
    def sloped(self) -> bool:
        return self.is_explained and not self.not_judged and self.slope_t > self.slope_limit

    @property
    def is_explained(self) -> bool:
        """Whether the errors that a slope leaves are those of the calibration, or those are not known."""
        left = self.sep if self.not_judged else min(self.sep, self.rest)
        return not left > self.sep_limit

    @property
    def new_slope(self) -> float:
        return self.slope if self.sloped else 1.0

    @property
    def new_bias(self) -> float:
        return self.intercept if self.sloped else -self.bias if self.biased else 0.0

    @property
    def advice(self) -> str:
        """'' where neither is beyond its limit."""
        if self.sloped:
            return f"slope {self.slope:.4g} and bias {self.intercept:+.4g}"
        return f"bias {-self.bias:+.4g}" if self.biased else ""

    def report(self, unit: str) -> str:
        """Three tests and what is advised, in lines."""

        def verdict(over: bool) -> str:
            return "over its limit" if over else "within its limit"

        unit = f" {unit}" if unit else ""
        sep = f"  SEP {self.sep:.4g}{unit}"
        if np.isfinite(self.sep_limit):
            over = self.sep > self.sep_limit
            sep += f", limit {self.sep_limit:.4g}: {verdict(over)}"
            sep += "" if self.is_explained else "; neither slope nor bias explains that"
        slope = f"  slope {self.slope:.4g}, t {self.slope_t:.3g}, limit {self.slope_limit:.3g}: "
        slope += self.not_judged or verdict(self.slope_t > self.slope_limit)
        bias = (
            f"  bias {self.bias:+.4g}{unit}, limit ±{self.bias_limit:.4g}: {verdict(abs(self.bias) > self.bias_limit)}"
        )
        lines = [bias, sep, slope]
        return "\n".join([*lines, f"  advised: {self.advice or 'no correction'}"])


def slope_bias(
    measured: np.ndarray, predicted: np.ndarray, error: float | None = None, calibrated: int = 0
) -> SlopeBias:
    """The tests of ISO 12099:2017, 5.3 to 5.5, of (n,) laboratory values and predictions of independent samples.

    Args:
        error: of the calibration, by cross-validation. calibrated: samples that it is from.

    Raises BadFile for fewer than `MIN_SAMPLES`, or values or predictions that are all the same.
    """
    from scipy.stats import f, t

    n = len(measured)
    if n < MIN_SAMPLES:
        raise BadFile(f"expected at least {MIN_SAMPLES} samples with a laboratory value, got {n}")
    residual = predicted - measured
    bias, sep = float(residual.mean()), float(residual.std(ddof=1))
    spread = float(predicted.std(ddof=1))
    if not spread > 0:
        raise BadFile(f"expected samples that differ, got {n} equal predictions")
    sd = float(measured.std(ddof=1))
    if not sd > 0:
        raise BadFile(f"expected samples that differ, got {n} equal laboratory values, {measured[0]:g}")
    covariance = float(np.cov(measured, predicted)[0, 1])
    slope = covariance / spread**2
    intercept = float(measured.mean() - slope * predicted.mean())
    rest = float(np.sqrt(np.sum((measured - intercept - slope * predicted) ** 2) / (n - 2)))
    slope_t = abs(slope - 1) * spread * np.sqrt(n - 1) / rest if rest > 0 else 0.0 if slope == 1 else np.inf
    two_sided = (1 + LEVEL) / 2
    known = error is not None and calibrated > 2
    sep_limit = error * np.sqrt(f.ppf(LEVEL, n - 1, calibrated - 2)) if known and error is not None else np.nan
    return SlopeBias(
        n, bias, float(t.ppf(two_sided, n - 1) * sep / np.sqrt(n)), sep, float(sep_limit), slope, intercept,
        float(slope_t), float(t.ppf(two_sided, n - 2)), sd, rest,
    )  # fmt: skip
