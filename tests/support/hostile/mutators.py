"""Changes of JSON values, of texts and of bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

MAX_CASE = 1 << 17  # bytes of a case; the code must bound what a compression bomb unpacks to


INTEGERS = (0, 1, -1, 2, 7, 8, 64, 127, 128, 255, 256, 32767, 65535, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 10**9, 10**12,
            2**40, 2**62, 2**63 - 1, -(2**31), -(2**63))  # fmt: skip


TEXTS = ("", "../../etc/passwd", "/etc/passwd", "nm", "cm-1", "index", "nir1", "NaN", "a" * 600, "é\u2603" * 40, "\x00",
         "\ud800", "float32", "uint16", "O", "<U1000000000", "1e400", "v9999999999", "9" * 5000, "-0")  # fmt: skip


def _nested(rng: Random) -> str:
    """A text that `dumped` replaces with deeply nested brackets, deeper than the json library could write."""
    return f"nested {rng.choice((2, 30, 400, 990, 1100, 30_000))} {rng.choice('[{')}"


def anything(rng: Random) -> Any:
    return rng.choice(
        (
            lambda: rng.choice(INTEGERS),
            lambda: rng.choice((0.5, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 1e39)),
            lambda: rng.choice(TEXTS),
            lambda: rng.choice((None, True, False, [], {}, [[]], [1], {"a": 1}, [None] * 300, list(range(3000)))),
            lambda: _nested(rng),
        )
    )()


def mutated_tree(value: Any, rng: Random) -> Any:
    """A JSON value with one node changed, removed, repeated or copied elsewhere."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key, other = rng.choice(keys), rng.choice(keys)
        made = value.copy()
        action = rng.random()
        if action < 0.7:
            made[key] = mutated_tree(value[key], rng)
        elif action < 0.8:
            del made[key]
        elif action < 0.9:
            made[key] = value[other]
        elif isinstance(made, list):
            made.extend([value[key]] * rng.choice((1, 3, 200)))
        else:
            made[rng.choice((*TEXTS, "time", "values", "labels", "spectrum", "object_id", "x"))] = value[other]
        return made
    if isinstance(value, int | float) and rng.random() < 0.3:
        return rng.choice((value + 1, -value, value * 10**6, str(value)))
    return anything(rng)


def dumped(value: Any) -> bytes:
    def deep(found: re.Match[str]) -> str:
        levels, left, right = int(found[1]), *(("[", "]") if found[2] == "[" else ('{"a":', "}"))
        return left * levels + "1" + right * levels

    return re.sub(r'"nested (\d+) ([\[{])"', deep, json.dumps(value)).encode()


def mutated_bytes(case: bytes, rng: Random) -> bytes:
    """Changes an aligned integer, a number in text, a bit, or a slice: removed, repeated or inserted."""
    if not case:
        return bytes(rng.randrange(256) for _ in range(rng.choice((1, 8, 64))))
    data, size = bytearray(case), len(case)
    action, at = rng.random(), rng.randrange(size)
    if action < 0.45:  # an aligned integer, such as a length or an offset
        width = rng.choice((1, 2, 4, 8))
        at -= at % width
        if at + width <= size:
            before = int.from_bytes(data[at : at + width], "little")
            near = before + rng.choice((-8, -4, -1, 1, 4, 8, 64))
            number = rng.choice((near, size, before * 2, rng.choice(INTEGERS)))
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    elif action < 0.6 and (digits := [*re.finditer(rb"\d+", case)]):
        found = rng.choice(digits)
        length = found.end() - found.start()
        text = rng.choice((str(abs(rng.choice(INTEGERS))), "9" * length, "0" * length, "-1", "1e400", "nan"))
        text = (
            text[:length].rjust(length, "0") if rng.random() < 0.6 else text
        )  # keeps its length, so that other lengths stay right
        data[found.start() : found.end()] = text.encode()
    elif action < 0.7:
        data[at] ^= 1 << rng.randrange(8)
    elif action < 0.8:
        del data[at : at + rng.choice((1, 4, 8, 64, size))]
    elif action < 0.9:
        data[at:at] = data[at : at + rng.choice((1, 8, 64, 512))] * rng.choice((1, 2, 30))
    else:
        data[at:at] = rng.choice(TEXTS).encode("utf-8", "replace")
    return bytes(data)


def chain(*mutators: Callable[[bytes, Random], bytes]) -> Callable[[bytes, Random], bytes]:
    """Applies some of the mutators in turn; a case that a mutator cannot read gets `mutated_bytes`."""

    def mutate(case: bytes, rng: Random) -> bytes:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            try:
                case = rng.choice(mutators)(case, rng)
            except Exception:  # noqa: BLE001 (the case was already broken)
                case = mutated_bytes(case, rng)
        return case

    return mutate


def in_json(case: bytes, rng: Random) -> bytes:
    return dumped(mutated_tree(json.loads(case), rng))


def deepened(case: bytes, rng: Random) -> bytes:
    """A JSON text with many opening brackets that are never closed."""
    at = case.find(b":", rng.randrange(len(case))) + 1
    return case[:at] + rng.choice((b"[", b'{"a":')) * rng.choice((1_000, 10_000)) + case[at:]
