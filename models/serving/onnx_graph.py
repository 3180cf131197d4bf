"""An ONNX graph, node by node; all its numbers are float64 but for networks, which ONNX runtimes compute in float32."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ... import NotInstalled

OPSET, IR_VERSION = 18, 9  # of 2022: what runtimes of the last years read


class Value(str):
    """The name of a value in a graph."""

    __slots__ = ()


Number = Value | np.ndarray | float


class Graph:
    """Nodes are added in the order of their computation.

    Raises NotInstalled without the package onnx.
    """

    def __init__(self) -> None:
        try:
            from onnx import TensorProto, helper, numpy_helper  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise NotInstalled("an ONNX file needs onnx, not installed here: pip install 'tamis[export]'") from error
        self._proto, self._helper, self._from_numpy = TensorProto, helper, numpy_helper.from_array
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, width: int, about: str) -> Value:
        """(n, width) float32, as float64"""
        self._inputs.append(self._typed(name, self._proto.FLOAT, ["n", width], about))
        return self.cast(Value(name), np.float64)

    def output(self, name: str, value: Value, shape: list[int | str], about: str, *, is_bool: bool = False) -> None:
        if not is_bool:
            value = self.cast(value, np.float32)
        self._nodes.append(self._helper.make_node("Identity", [value], [name]))
        self._outputs.append(
            self._typed(name, self._proto.BOOL if is_bool else self._proto.FLOAT, ["n", *shape], about)
        )

    def _typed(self, name: str, kind: int, shape: list[int | str], about: str) -> Any:
        return self._helper.make_tensor_value_info(name, kind, shape, doc_string=about)

    def op(self, kind: str, *inputs: Number, dtype: type = np.float64, **attributes: Any) -> Value:
        """One node with one output; arrays and numbers among its inputs become constants of that type."""
        names = [given if isinstance(given, Value) else self._constant(given, dtype) for given in inputs]
        made = Value(f"v{len(self._nodes)}")
        self._nodes.append(self._helper.make_node(kind, names, [made], **attributes))
        return made

    def _constant(self, number: np.ndarray | float, dtype: type) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(self._from_numpy(np.ascontiguousarray(number, dtype).reshape(np.shape(number)), name))
        return name

    def cast(self, x: Value, dtype: type) -> Value:
        return self.op("Cast", x, to=self._proto.FLOAT if dtype is np.float32 else self._proto.DOUBLE)

    def matmul(self, a: Value, b: Number) -> Value:
        return self.op("MatMul", a, b)

    def add(self, a: Value, b: Number) -> Value:
        return self.op("Add", a, b)

    def sub(self, a: Value, b: Number) -> Value:
        return self.op("Sub", a, b)

    def mul(self, a: Value, b: Number) -> Value:
        return self.op("Mul", a, b)

    def div(self, a: Value, b: Number) -> Value:
        return self.op("Div", a, b)

    def columns(self, x: Value, which: slice) -> Value:
        """(n, width) -> (n, some of them)"""
        first, last, axis = (self.whole(number) for number in (which.start, which.stop, 1))
        return self.op("Slice", x, first, last, axis)

    def squares(self, x: Value, axis: int = 1, *, keep: bool = False) -> Value:
        """The sum of squares along an axis: (n, width) -> (n,), or (n, 1)"""
        return self.op("ReduceSumSquare", x, self.whole(axis), keepdims=int(keep))

    def column(self, x: Value) -> Value:
        """(n,) -> (n, 1)"""
        return self.op("Unsqueeze", x, self.whole(1))

    def whole(self, *numbers: int) -> Value:
        return Value(self._constant(np.array(numbers), np.int64))

    def networks(self) -> SimpleNamespace:
        """The functions of a network's formula (`networks.Formula`), in float32."""

        def op(kind: str, *inputs: Any, **attributes: Any) -> Value:
            return self.op(kind, *inputs, dtype=np.float32, **attributes)

        def reshape(x: Value, *shape: int) -> Value:
            return self.op("Reshape", x, self.whole(*shape))

        def transpose(x: Value, *order: int) -> Value:
            return self.op("Transpose", x, perm=list(order))

        def norm(x: Value) -> Value:
            centred = op("Sub", x, self.op("ReduceMean", x, self.whole(-1)))
            variance = self.op("ReduceMean", op("Mul", centred, centred), self.whole(-1))
            return op("Div", centred, op("Sqrt", op("Add", variance, 1e-6)))

        def convolve(x: Value, weight: np.ndarray, bias: np.ndarray, n: int, stride: int) -> Value:
            """(B, n x channels) -> (B, ceil(n / stride) x filters), channels innermost, padded as `cnn.SameConv1d`."""
            filters, channels, kernel = weight.shape
            positions = -(-n // stride)
            padding = max((positions - 1) * stride + kernel - n, 0)
            x = transpose(reshape(x, -1, n, channels), 0, 2, 1)
            x = op("Conv", x, weight, bias, strides=[stride], pads=[padding // 2, padding - padding // 2])
            return reshape(transpose(x, 0, 2, 1), -1, positions * filters)

        return SimpleNamespace(
            matmul=lambda a, b: op("MatMul", a, b),
            add=lambda a, b: op("Add", a, b),
            reshape=reshape,
            transpose=transpose,
            pad=lambda x, left, right: self.op("Pad", x, self.whole(0, left, 0, right)),
            softmax=lambda x: op("Softmax", x, axis=-1),
            norm=norm,
            relu=lambda x: op("Relu", x),
            gelu=lambda x: op("Mul", x, op("Add", op("Mul", op("Erf", op("Mul", x, 0.5**0.5)), 0.5), 0.5)),
            convolve=convolve,
        )

    def to_bytes(self, name: str, about: str, metadata: dict[str, str]) -> bytes:
        """The file. Raises what onnx's own checker finds wrong."""
        from onnx.checker import check_model  # pyright: ignore[reportMissingImports]

        made = self._helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)
        model = self._helper.make_model(
            made,
            opset_imports=[self._helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="tamis",
            doc_string=about,
        )
        self._helper.set_model_props(model, metadata)
        check_model(model)
        return model.SerializeToString()
