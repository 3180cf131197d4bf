"""Which wavelengths a prediction rests on: by occlusion for any model, by attention for SpectraTr; known bands."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .absorptions import absorptions
from .axis import SPECTRUM_BANDS, Axis
from .model import Model

WINDOW = 0.04  # share of the axis that is hidden at a time
_BLOCK = 4096  # spectra predicted together


class Peak(NamedTuple):
    """Position in the axis's unit; prominence in the spectrum's; what is known to absorb there, or ''."""

    position: float
    prominence: float
    known: str


def known_absorption(position: float, axis: Axis) -> str:
    """At a position in the axis's unit, '' if none is known.

    >>> known_absorption(1212.0, Axis(np.array([1100.0, 1300.0]), "nm"))
    'C-H second overtone, CH3 and CH2'
    """
    return next((one.what for one in absorptions(axis) if one.low <= position <= one.high), "")


def peaks(absorbance: np.ndarray, axis: Axis, most: int = 12) -> list[Peak]:
    """The most prominent maxima of a spectrum (bands,), in order of the axis."""
    from scipy.signal import find_peaks

    found, about = find_peaks(absorbance, prominence=0.01 * np.ptp(absorbance))
    order = np.sort(np.argsort(-about["prominences"], kind="stable")[:most])
    at = found[order]
    known = (known_absorption(position, axis) for position in axis.values[at].tolist())
    return list(map(Peak, axis.values[at].tolist(), about["prominences"][order].tolist(), known))


def occlusion(
    predict: Callable[[np.ndarray], np.ndarray],
    spectra: np.ndarray,
    window: float = WINDOW,
    spans: Sequence[slice] = (),
) -> np.ndarray:
    """(n, bands) -> (n, bands): the absolute change of a prediction, in its unit, where a window at a band is hidden.

    A straight line bridges the window, as if nothing absorbed there. Of a sensor with few bands, such as a height, each
    number is replaced by its mean over the spectra. Occlusion: Zeiler & Fergus, ECCV 2014, arXiv 1311.2901.

    Args:
        predict: (m, bands) -> (m,). spans: the bands of each sensor, if there are several.
    """
    parts = [_occlusion(predict, spectra, window, span) for span in spans or [slice(0, spectra.shape[1])]]
    return np.hstack(parts)


def _occlusion(
    predict: Callable[[np.ndarray], np.ndarray], spectra: np.ndarray, window: float, span: slice
) -> np.ndarray:
    n, first, bands = len(spectra), span.start, span.stop - span.start
    is_short = bands < SPECTRUM_BANDS and bands < spectra.shape[1]
    half = max(1, round(window * bands / 2))
    middles = np.arange(0, bands, 1 if is_short else max(1, half // 2))
    hidden = np.repeat(spectra[None], len(middles), axis=0)  # (windows, n, bands)
    for i, middle in enumerate(middles):
        low, high = first + max(middle - half, 0), first + min(middle + half, bands - 1)
        across = np.linspace(0, 1, high - low + 1)
        if is_short:
            hidden[i, :, first + middle] = spectra[:, first + middle].mean()
        else:
            hidden[i, :, low : high + 1] = spectra[:, low, None] * (1 - across) + spectra[:, high, None] * across
    flat = hidden.reshape(-1, spectra.shape[1])
    predicted = np.concatenate([predict(flat[at : at + _BLOCK]) for at in range(0, len(flat), _BLOCK)])
    change = np.abs(predicted.reshape(len(middles), n) - predict(spectra))  # (windows, n)
    return np.array([np.interp(np.arange(bands), middles, change[:, i]) for i in range(n)])


def attention(model: Model, spectra: np.ndarray, axis: Axis) -> np.ndarray | None:
    """(n, bands) -> (n, bands of the grid), each row summing to 1: the attention that all patches pay to a band's.

    Rollout of one layer: the mean over heads, averaged with the identity for the residual path. None for a model
    without attention.

    References: Abnar & Zuidema, Quantifying attention flow in transformers, ACL 2020, arXiv 2005.00928.
    """
    networks = [one for one in getattr(model.estimator, "networks_", []) if hasattr(one.encoder, "attention")]
    if not networks:
        return None
    import torch

    from .network_training import standardised
    from .spectratr import HEADS, KEY_WIDTH, PATCH_BANDS

    treated = model.pipeline.transform(spectra, axis)
    scaled = standardised(treated, model.estimator.x_mean_, model.estimator.x_sd_)[:, None]
    bands = np.arange(treated.shape[1])
    patch = (bands + (-len(bands) % PATCH_BANDS) // 2) // PATCH_BANDS  # of each band, as the network pads
    shares = []
    for network in networks:
        encoder, device = network.encoder, next(network.parameters()).device
        with torch.inference_mode():
            x = encoder.patches(encoder.conv(scaled.to(device)).transpose(1, 2))  # (n, P, 64)
            q, k = (
                layer(x).unflatten(2, (HEADS, KEY_WIDTH)).transpose(1, 2)
                for layer in (encoder.attention.query, encoder.attention.key)
            )
            weights = torch.softmax(q @ k.transpose(2, 3) / KEY_WIDTH**0.5, dim=3).mean(dim=1)  # (n, P, P)
            paid = (0.5 * weights + 0.5 * torch.eye(weights.shape[1], device=device)).mean(dim=1)  # (n, P)
        share = paid.double().cpu().numpy()[:, patch]
        shares.append(share / share.sum(axis=1, keepdims=True))
    return np.mean(shares, axis=0)
