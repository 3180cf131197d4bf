"""The networks as formulas over plain arrays, computed by numpy or compiled by OpenVINO: a worker needs no torch.

A formula takes functions `f` (of `Numpy` or `Openvino`), weights by torch's names, and spectra (B, bands). All go layer
by layer except `spectra_encoder`: folded, it takes 15.5 instead of 28.3 MFLOP for a spectrum of 700 bands.
"""

import math
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..convolution import Convolution
from ..tensors import below

Weights = Mapping[str, np.ndarray]
Formula = Callable[[Any, Weights, Any, int], Any]  # functions, weights, (B, bands), bands -> (B, width)

PATCH, HEADS, KEY = 5, 4, 32  # of SpectraTr


def mlp(f: Any, w: Weights, x: Any, bands: int) -> Any:
    """(B, bands) -> (B, 128)"""
    return _dense(f, w, "2", f.gelu(_dense(f, w, "0", x)))


def cnn_encoder(f: Any, w: Weights, x: Any, bands: int) -> Any:
    """(B, bands) -> (B, 16 channels x an eighth of the bands)"""
    for name in ("conv_4", "conv_8", "conv_16"):
        x = f.relu(f.convolve(x, w[f"{name}.weight"], w[f"{name}.bias"], bands, stride=2))
        bands = -(-bands // 2)  # (B, bands / 2 x filters), rounded up
    x = f.transpose(f.reshape(x, -1, bands, 16), 0, 2, 1)
    return f.reshape(x, -1, 16 * bands)  # channels outermost, as torch flattens them


def cnn(f: Any, w: Weights, x: Any, bands: int) -> Any:
    """(B, bands) -> (B, targets)"""
    x = cnn_encoder(f, below("encoder.", w), x, bands)
    x = f.relu(_dense(f, w, "head.dense_64", x))
    x = f.relu(_dense(f, w, "head.dense_32", x))
    return _dense(f, w, "head.dense_targets", x)


def spectra_encoder(f: Any, w: Weights, x: Any, bands: int) -> Any:
    """(B, bands) -> (B, 32 P): exact, since everything before attention is linear.

    With u the 5 bands of a patch, its 64 features are u E + T, T (P, 64) the same for all spectra; so query, key and
    value are u times a (5, 32) plus a table. The score of patches i and j is then
        (u_i M + L_i) u_j' + u_i R_j' + C_ij,
    a product 10 wide instead of 32, and a table (P, P).
    """
    patches = -(-bands // PATCH)
    extend = PATCH * patches - bands
    u = f.reshape(f.pad(x, extend // 2, extend - extend // 2), -1, patches, PATCH)  # (B, P, 5)
    dense = w["patches.dense.weight"]
    embed = (dense @ w["conv.weight"][:, 0]).T  # E: (5, 64)
    table = dense @ w["conv.bias"] + w["patches.dense.bias"] + w["patches.position"]  # T: (P, 64)
    by_head: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # (heads, 5, key), (heads, P, key)
    for name in ("query", "key", "value"):
        weight, bias = w[f"attention.{name}.weight"], w[f"attention.{name}.bias"]
        by_head[name] = _heads(embed @ weight.T), _heads(table @ weight.T + bias)
    (q5, qt), (k5, kt), (v5, vt) = by_head.values()
    scale = KEY**-0.5
    m, left_table = scale * q5 @ k5.mT, scale * qt @ k5.mT  # M: (heads, 5, 5), L: (heads, P, 5)
    right_table, constant = scale * kt @ q5.mT, scale * qt @ kt.mT  # R: (heads, P, 5), C: (heads, P, P)
    same, none = np.broadcast_to(np.eye(PATCH), m.shape), np.zeros_like(m)
    blank = np.zeros_like(left_table)

    def project(weight: np.ndarray, offset: np.ndarray) -> Any:
        """(heads, 5, width), (heads, P, width) -> (B, heads, P, width)"""
        made = f.add(f.matmul(u, np.hstack(list(weight))), np.hstack(list(offset)))  # (B, P, heads x width)
        return f.transpose(f.reshape(made, -1, patches, HEADS, weight.shape[2]), 0, 2, 1, 3)

    left = project(np.concatenate([m, same], axis=2), np.concatenate([left_table, blank], axis=2))
    right = project(np.concatenate([same, none], axis=2), np.concatenate([blank, right_table], axis=2))
    scores = f.add(f.matmul(left, f.transpose(right, 0, 1, 3, 2)), constant[None])  # (B, heads, P, P)
    mixed = f.matmul(f.softmax(scores), project(v5, vt))  # (B, heads, P, key)
    mixed = f.reshape(f.transpose(mixed, 0, 2, 1, 3), -1, patches, HEADS * KEY)
    added = f.add(f.matmul(u, embed), table + w["attention.out.bias"])  # (B, P, 64)
    x = f.norm(f.add(added, f.matmul(mixed, w["attention.out.weight"].T)))
    # The norm's scale and shift go into the dense layer behind it.
    weight, bias = w["dense_64.weight"], w["dense_64.bias"]
    x = f.gelu(f.add(f.matmul(x, (weight * w["norm.weight"]).T), weight @ w["norm.bias"] + bias))
    x = f.gelu(_dense(f, w, "dense_32", x))  # (B, P, 32)
    return f.reshape(x, -1, 32 * patches)


def spectratr(f: Any, w: Weights, x: Any, bands: int) -> Any:
    """(B, bands) -> (B, targets)"""
    x = spectra_encoder(f, below("encoder.", w), x, bands)
    for name in ("dense_512", "dense_64", "dense_8"):
        x = f.gelu(_dense(f, w, f"head.{name}", x))
    return _dense(f, w, "head.dense_targets", x)


class Network(NamedTuple):
    """A formula, and how many spectra numpy computes at once.

    The cache holds 64 spectra in the CNN, but 8 in SpectraTr, whose scores take 300 kB each.
    """

    formula: Formula
    at_once: int = 64


NETWORKS = {"cnn": Network(cnn), "spectratr": Network(spectratr, at_once=8)}
ENCODERS = {"mlp": Network(mlp), "cnn": Network(cnn_encoder), "spectratr": Network(spectra_encoder, at_once=8)}


def _dense(f: Any, w: Weights, name: str, x: Any) -> Any:
    return f.add(f.matmul(x, w[f"{name}.weight"].T), w[f"{name}.bias"])


def _heads(x: np.ndarray) -> np.ndarray:
    """(rows, heads x key) -> (heads, rows, key)"""
    return x.reshape(len(x), HEADS, KEY).transpose(1, 0, 2)


class _Register(int):
    """The number of a value on a tape."""


class Numpy:
    """A network computed by numpy: in float64 the reference; in float32 it serves the CNN, and all without OpenVINO.

    The formula runs once at the start: constants are folded, and the other steps are recorded on a tape.

    >>> run = Numpy(lambda f, w, x, bands: f.relu(x), {}, 2, np.float64)
    >>> run(np.array([[-1.0, 1.0]]))
    array([[0., 1.]])
    """

    def __init__(self, formula: Formula, weights: Weights, bands: int, dtype: type, at_once: int = 64) -> None:
        self.dtype, self.at_once = dtype, at_once
        self._tape: list[tuple[Callable[..., np.ndarray], tuple[Any, ...]]] = []
        steps = {name: partial(self._then, step) for name, step in _STEPS.items()}
        formula(SimpleNamespace(convolve=self._convolve, **steps), weights, _Register(0), bands)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, width) float64"""
        parts = [self._run(x[at : at + self.at_once].astype(self.dtype)) for at in range(0, len(x), self.at_once)]
        return np.concatenate(parts).astype(np.float64)

    def _run(self, x: np.ndarray) -> np.ndarray:
        values = [x]
        for step, given in self._tape:
            values.append(step(*(values[value] if isinstance(value, _Register) else value for value in given)))
        return values[-1]

    def _then(self, step: Callable[..., np.ndarray], *given: Any) -> _Register:
        constants = (g.astype(self.dtype) if isinstance(g, np.ndarray) else g for g in given)
        self._tape.append((step, tuple(constants)))
        return _Register(len(self._tape))

    def _convolve(self, x: Any, weight: np.ndarray, bias: np.ndarray, n: int, stride: int) -> Any:
        """(B, n x channels) -> (B, ceil(n / stride) x filters), padded with zeros as `cnn.SameConv1d` does."""
        _, channels, kernel = weight.shape
        positions = -(-n // stride)
        padding = max((positions - 1) * stride + kernel - n, 0)
        x = self._then(_pad, x, padding // 2 * channels, (padding - padding // 2) * channels)
        convolution, offset = Convolution(weight, stride, self.dtype), np.tile(bias, positions).astype(self.dtype)

        def step(x: np.ndarray) -> np.ndarray:
            made = convolution(x)
            made += offset
            return made

        return self._then(step, x)


def _pad(x: np.ndarray, left: int, right: int) -> np.ndarray:
    """np.pad would take longer than the product that follows."""
    made = np.zeros((len(x), left + x.shape[1] + right), x.dtype)
    made[:, left : left + x.shape[1]] = x
    return made


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    x /= x.sum(axis=-1, keepdims=True)
    return x


def _norm(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + 1e-6)
    return x


def _erf(x: np.ndarray) -> np.ndarray:
    """Exact in float64, and slow: scipy's would take longer to import; in float32 to 2e-7.

    References: Abramowitz & Stegun, Handbook of Mathematical Functions (1964), 7.1.26.
    """
    if x.dtype == np.float64:
        return np.array([math.erf(value) for value in x.ravel().tolist()]).reshape(x.shape)
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    return np.copysign(1 - series * np.exp(-size * size), x)


_STEPS: dict[str, Callable[..., np.ndarray]] = {
    "matmul": np.matmul,
    "add": np.add,
    "reshape": lambda x, *shape: x.reshape(shape),
    "transpose": lambda x, *order: x.transpose(order),
    "pad": _pad,
    "softmax": _softmax,
    "norm": _norm,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (0.5 + 0.5 * _erf(x * 0.5**0.5)),
}


@lru_cache(maxsize=1)
def _openvino() -> tuple[Any, Any, Any]:
    """The module, its operators, its core; raises ImportError if it is not installed."""
    # `import openvino` reports to its makers through these two. It works without them, and takes a third of the time.
    for name in ("openvino_telemetry", "openvino.tools"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    import openvino
    from openvino import opset13

    return openvino, opset13, openvino.Core()


def precisions() -> list[str]:
    """What OpenVINO computes fast on this processor, the fastest first: bf16 if it can, fp32; none without OpenVINO."""
    try:
        _, _, core = _openvino()
        capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError):  # not installed, or not for this processor
        return []
    return [*(["bf16"] if "BF16" in capable else []), "fp32"]


class Openvino:
    """A network compiled by OpenVINO for the CPU, in bf16 or fp32; a prediction takes `threads`, 0 for every core."""

    # SpectraTr's activations for so many take some 100 MB; with 32 at once the last dense layer is a third as fast.
    at_once = 256

    def __init__(self, formula: Formula, weights: Weights, bands: int, precision: str, threads: int = 0) -> None:
        ov, op, core = _openvino()
        spectra = op.parameter(ov.PartialShape([-1, bands]), np.float32)
        graph = ov.Model([formula(_operations(op), weights, spectra, bands)], [spectra])
        # Pinned, two workers of one thread each would share the first core.
        config = {"ENABLE_CPU_PINNING": False, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
        config["INFERENCE_PRECISION_HINT"] = {"bf16": "bf16", "fp32": "f32"}[precision]
        self._request = core.compile_model(graph, "CPU", config).create_infer_request()
        self._lock = threading.Lock()  # the drift monitor predicts in another thread

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, bands) -> (n, width) float64"""
        parts = []
        for at in range(0, len(x), self.at_once):
            some = np.ascontiguousarray(x[at : at + self.at_once], np.float32)
            with self._lock:
                parts.append(self._request.infer([some], share_inputs=True)[0].astype(np.float64))
        return np.concatenate(parts)


def _operations(op: Any) -> SimpleNamespace:
    """A formula's functions, as operators of an OpenVINO graph."""

    def whole(*numbers: int) -> Any:
        return op.constant(np.array(numbers, np.int64))

    def node(x: Any) -> Any:
        return op.constant(np.ascontiguousarray(x, np.float32)) if isinstance(x, np.ndarray) else x

    return SimpleNamespace(
        matmul=lambda a, b: op.matmul(a, node(b), False, False),
        add=lambda a, b: op.add(a, node(b)),
        reshape=lambda x, *shape: op.reshape(x, whole(*shape), False),
        transpose=lambda x, *order: op.transpose(x, whole(*order)),
        pad=lambda x, left, right: op.pad(x, whole(0, left), whole(0, right), "constant", op.constant(np.float32(0))),
        softmax=lambda x: op.softmax(x, -1),
        norm=lambda x: op.mvn(x, whole(-1), True, 1e-6, "inside_sqrt"),
        gelu=lambda x: op.gelu(x, "ERF"),
    )
