"""Units of laboratory values: converted where that is certain, refused elsewhere."""

from __future__ import annotations

import pytest

from tamis.streamer.processing.units import convert


@pytest.mark.parametrize(
    ("value", "unit", "to", "expected"),
    [
        (103, "g/kg", "%", 10.3),
        (103, "g kg-1", "%", 10.3),
        (103, "g·kg⁻¹", "% (w/w)", 10.3),
        (10.3, "g/100 g", "%", 10.3),
        (1030, "mg/100g", "wt%", 1.03),
        (103_000, "ppm", "%", 10.3),
        (103_000, "mg/kg", "[g/100g]", 10.3),
        (10.3, "%", "mg/g", 103.0),
        (5, "µg/g", "mg/kg", 5.0),
        (5, "kg/t", "%", 0.5),
        (5, "g/kg DM", "% DM", 0.5),
        (5, "G/L", "g/dL", 0.5),
        (5, "% w/v", "g/L", 50.0),
        (12.5, "%vol", "mL/100 mL", 12.5),
        (5, "mmol/L", "mol/m3", 5.0),
        (9, "°Bx", "°Bx", 9),
    ],
)
def test_units_of_one_dimension_convert(value: float, unit: str, to: str, expected: float) -> None:
    assert convert(value, unit, to) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("unit", "to"),
    [
        ("%", "g/L"),  # needs the density
        ("mg/L", "ppm"),
        ("ppm v/v", "mg/kg"),
        ("% DM", "%"),  # needs the dry matter
        ("g/kg as is", "g/kg DM"),
        ("mmol/L", "g/L"),  # needs the molar mass
        ("mg N/L", "mg/L"),
        ("°Bx", "%"),
        ("g", "%"),
        ("kJ/kg", "%"),
    ],
)
def test_what_needs_more_than_a_factor_is_refused(unit: str, to: str) -> None:
    with pytest.raises(ValueError, match="expected the unit .*, got .*, which does not convert to it with certainty"):
        convert(1.0, unit, to)
