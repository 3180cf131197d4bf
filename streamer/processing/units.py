"""Units of laboratory values: converted where that is certain, which is within one dimension and on one basis."""

import re

_POWERS = {"k": 3, "": 0, "d": -1, "c": -2, "m": -3, "u": -6, "n": -9}
_PARTS = {"%": -2, "percent": -2, "permille": -3, "‰": -3, "ppm": -6, "ppb": -9}
_OTHERS = {"t": ("g", 6), "m3": ("l", 3), "dm3": ("l", 0), "cm3": ("l", -3), "cc": ("l", -3)}
# What a share refers to: mass, unless it says otherwise.
_BASIS = {
    **dict.fromkeys(("ww", "mm", "wt", "mass", "byweight"), ""),
    "mv": "w/v",
    "wv": "w/v",
    "vv": "v/v",
    "vol": "v/v",
}
_AMOUNT = r"(?:1(?:0{1,3})?)?(?:(?:[kdcmun]?(?:g|l|mol))|t|m3|dm3|cm3|cc)"
_QUANTITY = re.compile(r"(?P<count>10{0,3})?(?P<prefix>[kdcmun](?=g|l|mol))?(?P<name>g|l|mol|t|m3|dm3|cm3|cc)")
_FRACTION = re.compile(r"(?P<before>wt|w|m|mass|vol|v)?[.-]?(?P<parts>%|percent|permille|‰|ppm|ppb)(?P<basis>.*)", re.S)
_RATIO = re.compile(rf"(?P<top>{_AMOUNT})/(?P<below>{_AMOUNT})(?P<basis>.*)", re.S)
_BEFORE = {"vol": "v/v", "v": "v/v"}  # vol%

Scale = tuple[str, int]  # its dimension with its basis, and its power of ten


def convert(value: float, unit: str, to: str) -> float:
    """The same quantity in another unit.

    Raises:
        ValueError: it is not certain that the units measure the same.

    >>> convert(103.0, "g/kg", "%"), convert(1030, "mg/100 g DM", "% DM"), convert(5.0, "g/l", "mg/mL")
    (10.3, 1.03, 5.0)
    """
    if _tidy(unit) == _tidy(to):
        return value
    one, other = _scale(unit), _scale(to)
    if one is None or other is None or one[0] != other[0]:
        raise ValueError(f"expected the unit {to!r}, got {unit[:40]!r}, which does not convert to it with certainty")
    power = one[1] - other[1]
    return float(value * 10**power if power >= 0 else value / 10**-power)


def _tidy(unit: str) -> str:
    """'[g / 100 g]' as 'g/100g'; exponents as a division: 'g kg-1' as 'g/kg'."""
    text = unit.strip().strip("[]").replace("µ", "u").replace("μ", "u").replace("³", "3").replace("⁻¹", "-1")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    text = re.sub(r"\s+per\s+", "/", text.strip(), flags=re.I)
    text = re.sub(r"\b(g|mg|ug|µg|kg|ng|mol|mmol|umol)[\s·*.]*(kg|g|l|L|dl|dL|ml|mL|m3|dm3)\^?-1\b", r"\1/\2", text)
    return re.sub(r"\s+", "", text).lower()


def _scale(unit: str) -> Scale | None:
    text = _tidy(unit)
    if found := _FRACTION.fullmatch(text):
        basis = _BEFORE.get(found["before"] or "", "") + _basis(found["basis"])
        by_mass = basis.removeprefix("w/v").removeprefix("v/v") == basis
        if found["parts"] in ("ppm", "ppb") and not by_mass:
            return None
        if basis.startswith("w/v"):  # % (w/v): g in 100 mL
            return f"g/l{basis.removeprefix('w/v')}", _PARTS[found["parts"]] + 3
        if basis.startswith("v/v"):
            return f"l/l{basis.removeprefix('v/v')}", _PARTS[found["parts"]]
        return f"g/g{basis}", _PARTS[found["parts"]]
    if found := _RATIO.fullmatch(text):
        top, below = _quantity(found["top"]), _quantity(found["below"])
        return f"{top[0]}/{below[0]}{_basis(found['basis'])}", top[1] - below[1]
    return None


def _quantity(text: str) -> Scale:
    """'100ml' as ('l', -1)"""
    found = _QUANTITY.fullmatch(text)
    assert found is not None  # `_AMOUNT` matches the same
    count = len(found["count"]) - 1 if found["count"] else 0
    name, power = _OTHERS.get(found["name"], (found["name"], 0))
    return name, count + power + _POWERS[found["prefix"] or ""]


def _basis(text: str) -> str:
    """What the unit refers to, such as dry matter: only the same basis converts."""
    plain = re.sub(r"[^\w]", "", text)
    for name, meaning in _BASIS.items():
        if plain.startswith(name):
            return meaning + plain[len(name) :]
    return plain
