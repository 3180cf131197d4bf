"""A transformer that reads any spectral axis: tokens are patches of log wavelength where an instrument has bands."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tamis import AxisMismatch
from tamis.models.axis import Axis

STEP = 0.03  # between the centres of patches, in log wavelength: 33 nm at 1100 nm, 75 nm at 2500 nm
WINDOW = 1.5  # a patch's width, in steps: neighbours share bands, so that no peak lies on an edge only
ORDERS = 12  # coefficients of a patch: 3 to 6 nm in the near infrared
PERIODS = np.geomspace(4.0, 0.06, 8)  # of the Fourier features of position, in log wavelength
WIDTH_PERIODS = np.array([40.0, 20.0])  # of those of the log of the band width, from -9 to -3: it changes them little
TREATMENTS = ("raw", "slopes", "snv slopes")
MIN_SD = 0.2  # of an order, as a share of the greatest: the highest orders are mostly noise
POOLS = ("summary", "gated")
READ = 2  # of the gated mean: features of the embedding, over the width of a token


class Patches(NamedTuple):
    """Where the patches of an axis lie, and how values become their coefficients.

    Attributes:
        number: (P,) int, of each patch: its centre is number x STEP. width: (P,) of its bands, in log wavelength.
        cover: (P,) share of its window that has bands.
        bands: (P, W) what it reads. fit: (P, W, ORDERS) from their values to coefficients, 0 where padded.
        place: (P, features) of position and band width.
    """

    number: Tensor
    width: Tensor
    cover: Tensor
    bands: Tensor
    fit: Tensor
    place: Tensor


class Reference(NamedTuple):
    """Spectra that are usual for a use, on the patches that its instruments share: what embeddings are relative to.

    Attributes:
        patches: number and band width of each, the widest of all the instruments: a finer one is blurred to it.
        mean: (R, ORDERS) of their coefficients. sd: (ORDERS,) of those less their mean.
    """

    patches: tuple[tuple[int, float], ...]
    mean: Tensor
    sd: Tensor


def log_wavelength(axis: Axis) -> np.ndarray:
    """(bands,) log of nm. A Raman shift stands where light of that wavenumber would: both are vibrations.

    Raises AxisMismatch for an axis that has no wavelengths, or a shift that is not positive.
    """
    if axis.unit == "index" or axis.values.min() <= 0:
        raise AxisMismatch(f"expected an axis of positive wavelengths, wavenumbers or Raman shifts, got {axis}")
    return np.log(axis.values if axis.unit == "nm" else 1e7 / axis.values)


@lru_cache(maxsize=64)
def patches_of(axis: Axis, wanted: tuple[tuple[int, float], ...] | None = None, kept: bytes | None = None) -> Patches:
    """The patches where the axis has bands: all, or those of these numbers, blurred to these band widths.

    A patch's coefficients are those of a smooth fit by Legendre polynomials to the bands in its window, with as many
    orders as the band width resolves: they hardly depend on how densely the spectrum was sampled. A band is as wide as
    the distance to its neighbours; recordings do not say more.

    Args:
        kept: the bytes of a (bands,) bool, of the bands that are not missing.
    """
    from scipy.ndimage import median_filter

    u = log_wavelength(axis)
    gaps = np.abs(np.diff(u))
    usual = median_filter(gaps, 9, mode="nearest")
    gaps = np.where(gaps > 2 * usual, usual, gaps)  # a cut of the detector makes no wide bands
    width = (np.append(gaps, gaps[-1]) + np.insert(gaps, 0, gaps[0])) / 2
    chosen = np.arange(len(u)) if kept is None else np.flatnonzero(np.frombuffer(kept, bool))
    order = chosen[np.argsort(u[chosen])]
    u, width = u[order], width[order]
    core = np.round(u / STEP).astype(int)
    number = np.unique(core)
    coarsest = dict(wanted or ())
    if wanted is not None:
        number = number[np.isin(number, list(coarsest))]
    if not len(number):
        raise AxisMismatch("the axis and the reference have no wavelengths in common")
    in_core = core == number[:, None]  # (P, bands)
    own = (in_core * width).sum(axis=1) / in_core.sum(axis=1)
    wide = np.maximum(own, [coarsest.get(one, 0.0) for one in number.tolist()])
    blur = np.sqrt(wide**2 - own**2)[:, None]  # (P, 1), full width at half maximum
    apart = np.abs(u - STEP * number[:, None])  # (P, bands), from the patch's centre
    reach = STEP * WINDOW / 2
    read = apart <= reach + 1.5 * blur
    first = np.argsort(~read, axis=1, kind="stable")[:, : read.sum(axis=1).max()]  # (P, W)
    read, inside = (np.take_along_axis(mask, first, axis=1) for mask in (read, apart <= reach))
    weight = np.where(inside, width[first], 0.0) / (STEP * WINDOW)
    k = np.arange(ORDERS)
    t = np.clip((u[first] - STEP * number[:, None]) / reach, -1, 1)
    basis = np.polynomial.legendre.legvander(t, ORDERS - 1) * np.sqrt(2 * k + 1)  # orthonormal over the window
    weighted = weight[:, :, None] * basis
    resolved = STEP * WINDOW / (2 * wide[:, None])  # orders, by Nyquist
    before, after = u[0] - width[0] / 2 - (STEP * number - reach), STEP * number + reach - (u[-1] + width[-1] / 2)
    within = 2 * reach * (1 - weight.sum(axis=1)) - wide  # a sum over bands is wrong by up to one of them
    cover = 1 - np.clip(np.max([before, after, within], axis=0) / (2 * reach), 0, 1)
    penalty = 1e-3 * np.minimum(k / resolved, 10) ** 8 + 0.3 * (1 - cover[:, None]) * k**2
    gram = weighted.swapaxes(1, 2) @ basis + penalty[:, None] * np.eye(ORDERS)
    fit = np.linalg.solve(gram, weighted.swapaxes(1, 2)).swapaxes(1, 2)  # (P, W, ORDERS)
    if blur.any():
        distance = u[first][:, :, None] - u[first][:, None]  # (P, W, W)
        near = np.exp(-4 * np.log(2) * np.minimum(np.abs(distance) / (blur[:, None] + 1e-9), 10) ** 2)
        near = near * np.where(read, width[first], 0.0)[:, None]
        near /= near.sum(axis=2, keepdims=True) + 1e-30
        fit = near.swapaxes(1, 2) @ fit
    phases = np.hstack([STEP * number[:, None] / PERIODS, np.log(wide)[:, None] / WIDTH_PERIODS]) * 2 * np.pi
    raman = np.full((len(number), 1), axis.unit == "raman")
    place = np.hstack([np.sin(phases), np.cos(phases), cover[:, None], raman])
    wide, cover, fit, place = (torch.from_numpy(a.astype(np.float32)) for a in (wide, cover, fit, place))
    return Patches(torch.from_numpy(number), wide, cover, torch.from_numpy(order[first]), fit, place)


class SpectralTransformer(nn.Module):
    """(B, bands) on any axis -> (B, width): 394,944 parameters, whatever the bands.

    Patches lie at fixed log wavelengths, so that two instruments that see the same wavelengths have the same patches;
    there are tokens only where an instrument has bands, and each is embedded with its position and the width of its
    bands. A patch that is covered in part weighs in attention as its part does.

    Args:
        treatment: of the patches' coefficients. raw: none. slopes: without each patch's mean, as a derivative.
            snv slopes: also scaled by the whole spectrum.
        pool: what becomes the embedding: a summary token, or (gated) the mean over patches of a linear map of their
            tokens times factors of their position, so that it keeps apart what lies where.

    References: Vaswani et al., NeurIPS 2017, arXiv 1706.03762; Fourier features: Tancik et al., NeurIPS 2020,
        arXiv 2006.10739.
    """

    def __init__(
        self, width: int = 96, layers: int = 3, heads: int = 4, treatment: str = "slopes", pool: str = "summary"
    ) -> None:
        super().__init__()
        if treatment not in TREATMENTS or pool not in POOLS:
            raise ValueError(f"expected one of {TREATMENTS} and one of {POOLS}, got {treatment!r} and {pool!r}")
        self.treatment, self.pool = treatment, pool
        self.width = READ * width if pool == "gated" else width
        features = 2 * (len(PERIODS) + len(WIDTH_PERIODS)) + 2
        self.values = nn.Linear(ORDERS, width, bias=False)
        # Of each place: what is added to a token, and the factors of its values and of what is read from it.
        factors = nn.Linear(width, (2 + READ) * width)
        self.place = nn.Sequential(nn.Linear(features, width), nn.GELU(), factors)
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        self.hidden = nn.Parameter(0.02 * torch.randn(width))  # in the place of values that are hidden
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, READ * width, bias=False)
        with torch.no_grad():  # factors whose sd along the axis is about 1
            factors.weight[width:] *= 6
            self.values.weight *= 0.03  # at first nearly linear in the spectrum

    def forward(self, values: Tensor, axis: Axis, reference: Reference) -> Tensor:
        """(B, bands) -> (B, width). NaN is a missing band: it is left out, as if the axis had none there.

        Raises AxisMismatch if the axis has no wavelengths, or no patch of the reference; ValueError if values and
        axis differ in bands.
        """
        if values.shape[1] != len(axis):
            raise ValueError(f"expected {len(axis)} bands ({axis}), got {values.shape[1]}")
        present = ~values.isnan()
        if present.all():
            return self.pooled(*self.read(values, axis, reference))
        out = values.new_empty(len(values), self.width)
        patterns, which = present.unique(dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            known = values[which == i].nan_to_num()  # no patch reads a missing band
            out[which == i] = self.pooled(*self.read(known, axis, reference, pattern.cpu().numpy().tobytes()))
        return out

    def read(
        self, values: Tensor, axis: Axis, reference: Reference, kept: bytes | None = None
    ) -> tuple[Tensor, Patches]:
        """(B, bands) -> tokens (B, 1 + P, width), the summary first, and their patches"""
        c, patches = self.coefficients(values, axis, reference, kept)
        return self.tokens(c, patches), patches

    def tokens(self, c: Tensor, patches: Patches, hidden: Tensor | None = None) -> Tensor:
        """(B, P, ORDERS) -> (B, 1 + P, width); where `hidden` (B, P) is true, the coefficients are not read."""
        added, factor, *_ = self.place(patches.place).chunk(2 + READ, dim=1)  # (P, width) each
        x = self.values(c) * factor
        if hidden is not None:
            x = torch.where(hidden[:, :, None], self.hidden, x)
        x = x + added  # (B, P, width)
        x = torch.cat([self.summary.expand(len(x), 1, -1), x], dim=1)
        bias = F.pad(patches.cover.clamp_min(1e-4).log(), (1, 0))  # (1 + P,)
        for block in self.blocks:
            x = block(x, bias)
        return self.norm(x)

    def pooled(self, x: Tensor, patches: Patches) -> Tensor:
        """(B, 1 + P, width) -> (B, width)"""
        if self.pool == "summary":
            return x[:, 0]
        read = self.readout(x[:, 1:]) * self.place(patches.place)[:, -self.width :]
        return torch.einsum("bpd,p->bd", read, patches.cover / patches.cover.sum())

    def coefficients(
        self, values: Tensor, axis: Axis, reference: Reference, kept: bytes | None = None
    ) -> tuple[Tensor, Patches]:
        """(B, bands) -> (B, P, ORDERS), treated, relative to the reference and in units of its sd"""
        patches = patches_of(axis, reference.patches, kept)
        here = torch.isin(torch.tensor([number for number, _ in reference.patches]), patches.number)
        return (self.treated(values, patches) - reference.mean[here]) / reference.sd, patches

    def treated(self, values: Tensor, patches: Patches) -> Tensor:
        """(B, bands) -> (B, P, ORDERS)"""
        c = torch.einsum("bpw,pwk->bpk", values[:, patches.bands], patches.fit)
        if self.treatment == "raw":
            return c
        c = torch.cat([torch.zeros_like(c[:, :, :1]), c[:, :, 1:]], dim=2)
        if self.treatment == "slopes":
            return c
        share = patches.cover / patches.cover.sum()
        return c / (torch.einsum("bpk,p->b", c.square(), share) + 1e-12).sqrt()[:, None, None]

    @torch.no_grad()
    def reference(self, values: Tensor, axis: Axis, *others: Axis) -> Reference:
        """Of (n, bands) spectra without NaN, on the patches that their axis shares with each of the others.

        A patch counts as shared where each axis covers it, or half of it if there is one axis only.

        Raises AxisMismatch if they share no patch.
        """
        widths: dict[int, list[float]] = {}
        for patches in map(patches_of, (axis, *others)):
            of_one = zip(patches.number.tolist(), patches.width.tolist(), patches.cover.tolist(), strict=True)
            for number, width, cover in of_one:
                if cover > (0.95 if others else 0.5):
                    widths.setdefault(number, []).append(width)
        shared = tuple((n, max(found)) for n, found in sorted(widths.items()) if len(found) == 1 + len(others))
        if not shared:
            raise AxisMismatch(f"no wavelengths in common: {', '.join(map(str, (axis, *others)))}")
        c = self.treated(values, patches_of(axis, shared))
        mean = c.mean(dim=0)
        sd = (c - mean).square().mean(dim=(0, 1)).sqrt()
        return Reference(shared, mean, sd.clamp_min(MIN_SD * float(sd.max()) + 1e-12))


class Block(nn.Module):
    """Attention and two dense layers, each after a layer norm and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_dense = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """(B, T, width), with a bias (T,) of each token as a key"""
        three = self.query_key_value(self.norm_attention(x)).unflatten(2, (3, self.heads, -1))
        q, k, v = three.permute(2, 0, 3, 1, 4)  # (B, heads, T, key) each
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(q.shape[2], -1))
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.dense(self.norm_dense(x))
