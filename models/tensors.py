"""Named arrays as the bytes of a safetensors file, and groups of them that share a prefix."""

from collections.abc import Mapping

import numpy as np


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    # safetensors writes memory in the order it has: a transposed view would come back scrambled.
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()})


def below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """
    >>> below("head.", {"head.bias": np.zeros(1), "mean": np.ones(1)})
    {'bias': array([0.])}
    """
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
