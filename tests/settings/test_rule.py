"""The language of rules: what it may say, and how a bad rule is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tamis import BadSettings
from tamis.streamer.settings.load import load
from tamis.streamer.settings.rule import Rule

from ..support.lines import by


@pytest.mark.parametrize(
    ("text", "facts", "holds"),
    [
        ('label == "PVC" and confidence >= 0.9', {"label": "PVC", "confidence": 0.9}, True),
        ('label == "PVC" and confidence >= 0.9', {"label": "PVC", "confidence": 0.89}, False),
        ('label != "PET" or not certain', {"label": "PET", "certain": False}, True),
        ("0 < fat_low <= 12", {"fat_low": 12.0}, True),
        ("fat > -1", {"fat": None}, False),
        ("fat > 1", {"fat": float("nan")}, False),
        ('p["PVC"] > .5 and value["dry matter"] < 40', {"p[PVC]": 0.6, "dry matter": 39.0}, True),
        ('label > 3 or label == "b"', {"label": "b"}, True),
    ],
)
def test_a_rule_applies_as_its_text_says(text: str, facts: dict[str, Any], holds: bool) -> None:
    assert Rule(text)(facts) is holds


@pytest.mark.parametrize(
    "text",
    [
        "", "fat >", "__import__('os').system('true')", "fat.real > 1", "(lambda: 1)() > 0", "fat in [1, 2]",
        "fat + 1 > 2", "[x for x in y] == 1", "f'{fat}' == 'a'", "a if b else c", "p[0] > 1", "fat = 3", "3",
        "a" * 2_000, "(" * 500 + "a" + ")" * 500,
    ],
)  # fmt: skip
def test_an_invalid_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rule"):
        Rule(text)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"action": "eject", "when": "fat >"}, "expected a rule such as"),
        ({"action": "eject"}, "expected `when`, or a class with purity or recovery"),
        ({"action": "eject", "class": "PVC"}, "class = 'PVC' needs either purity or recovery"),
        ({"action": "eject", "purity": 0.9}, "purity and recovery need a class"),
        ({"action": "Eject it", "when": "fat > 1"}, "should match pattern"),
        ({"action": "eject", "whn": "fat > 1"}, "unknown setting lines.*.decide.rules.0.whn; known: action, when"),
    ],
)
def test_the_error_of_a_bad_rule_names_its_setting(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSettings) as refused:
        load(None, {"lines": by([rule])})
    assert words in str(refused.value)
