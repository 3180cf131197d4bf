"""How benchmarks report: row by row, as JSON, and as a section of docs/benchmarks.md.

Each command replaces its own section of the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows)])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def rows_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = list(dict.fromkeys(key for row in rows for key in row))
    return table([head.replace("_", " ") for head in heads], ([row.get(head, "") for head in heads] for row in rows))


def run_parts(
    parts: Mapping[str, Callable[[Any], Iterable[dict[str, Any]]]], given: Any, only: str, to: Path | None
) -> dict[str, list[dict[str, Any]]]:
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
    return found
