"""How benchmarks report: row by row, as JSON, and as a section of docs/benchmarks.md.

Each command replaces its own section of the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"


def put(section: str, text: str) -> None:
    """Replaces the text between the section's marks, or adds the section at the end."""
    begin, end = f"<!-- {section} -->", f"<!-- /{section} -->"
    page = PAGE.read_text()
    if begin not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def run_parts(
    parts: Mapping[str, Callable[[Any], Iterable[dict[str, Any]]]], given: Any, only: str, to: Path | None
) -> None:
    """Runs the parts whose name contains `only`; prints each row when it is measured, and writes all as JSON."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, part in parts.items():
        if only in name:
            found[name] = []
            for row in part(given):
                print(name, *(f"{key}={value}" for key, value in row.items()), flush=True)
                found[name].append(row)
    if to:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(found, indent=1))
