"""Comparisons and explanations on the terminal: which file, which tables, which pages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import BadFile
from ..models.store import Store


def run_stream(
    file: Path,
    targets: Sequence[str],
    stream: str,
    models: Sequence[str],
    how: Mapping[str, Any],
    json_path: Path | None,
) -> None:
    """Test, then train, over a file's experiences; tells a table a target."""
    import orjson

    from .continual import HEADINGS, replay_stream, rows_of
    from .pages.charts import write_page

    out, every = _wide_console(), {}
    for target in targets:
        with _telling() as progress:
            done = replay_stream(
                *(file, target, stream, models),
                labels=(how["labels"] or [0])[0],
                seeds=how["seeds"],
                group=how["group"],
                reading=how["reading"],
                progress=progress,
            )
        title = f"{target}: test, then train, over {len(done.experiences)} values of {stream}"
        out.print(_rich_table(title, HEADINGS, rows_of(done)))
        every[target] = {
            "experiences": done.experiences,
            "courses": [
                {"model": c.model, "prequential_rmsep": done.prequential(c), "errors": c.errors.tolist()}
                for c in done.courses
            ],
        }
    if json_path is not None:
        write_page(orjson.dumps(every, option=orjson.OPT_INDENT_2).decode() + "\n", json_path)


def run_compare(
    file: Path,
    targets: Sequence[str],
    models: Sequence[str],
    how: Mapping[str, Any],
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """Compares models on a file and tells the result: a table a target, who wins, and the files asked for."""
    from .compare import HEADINGS, as_json, compare, page, rows_of, verdicts

    _refuse_folders(json_path, html_path)
    with _telling() as progress:
        done = compare(file, targets, models, **how, progress=progress)
    out = _wide_console()
    for target, labels in done.groups():
        title = f"{target}: {labels} labels, {len(done.measured[target])} test rows ({done.split})"
        out.print(_rich_table(title, HEADINGS, rows_of(done, target, labels)))
        for verdict in verdicts(done, target, labels):
            out.print(f"  {verdict}", highlight=False)
    _write_comparison(as_json(done), page(done), json_path, html_path, out)


def run_explain(
    store: Store,
    name: str,
    version: str | None,
    file: Path,
    target: str | None,
    reading: Mapping[str, Any],
    html_path: Path | None,
) -> None:
    """Tells what a model's predictions of a file rest on: a table, and a page where it was asked for."""
    from .explain import explain, headings, page, rows_of
    from .pages.charts import write_page
    from .records import read_table
    from .files.table import read_table
    from .page import write_page

    _refuse_folders(html_path)
    model, version = store.load(name, version)
    done, out = explain(model, read_table(file, **reading), target), _wide_console()
    title = f"{name} {version}, {done.target}: what it rests on, by {done.n} spectra"
    out.print(_rich_table(title, headings(done), rows_of(done)))
    if done.agreement is not None:
        out.print(f"  attention and occlusion: rank correlation {done.agreement:+.2f}", highlight=False)
    if html_path is not None:
        write_page(page(done), html_path)
        out.print(f"page: {html_path}", highlight=False)


def _refuse_folders(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and path.is_dir():  # told before the minutes of work
            raise BadFile(f"{path}: expected a file to write, got a directory")


@contextmanager
def _telling() -> Iterator[Callable[[str], None]]:
    """What to tell of one's progress: a line on a terminal, until the block ends."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    stderr = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda told: bar.update(task, description=told)


def _wide_console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def _rich_table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, name in enumerate(heads):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _write_comparison(
    told: Mapping[str, Any], page: str, json_path: Path | None, html_path: Path | None, out: Any
) -> None:
    import orjson

    from .pages.charts import write_page

    if json_path is not None:
        write_page(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode(), json_path)
    if html_path is not None:
        write_page(page, html_path)
        out.print(f"page: {html_path}", highlight=False)


def holds_classes(file: Path, targets: Sequence[str], reading: Mapping[str, Any]) -> bool:
    """Whether the target is a column of texts; raises BadFile."""
    from .files.table import read_head

    columns = read_head(file, **reading).columns
    return any(columns[target].dtype.kind in "OU" for target in targets if target in columns)


def run_compare_classes(
    file: Path,
    targets: Sequence[str],
    models: Sequence[str],
    how: Mapping[str, Any],
    json_path: Path | None,
    html_path: Path | None,
) -> None:
    """As `run_compare`, for a target that holds classes."""
    from .compare_classes import (
        HEADINGS,
        STRANGE_HEADINGS,
        as_json,
        by_class,
        by_strange,
        class_headings,
        compare_classes,
        page,
        rows_of,
        verdicts,
    )

    if len(targets) > 1:
        raise BadFile(f"{file}: expected one target where it holds classes, got {', '.join(targets)}")
    _refuse_folders(json_path, html_path)
    with _telling() as progress:
        done = compare_classes(file, targets[0], models, **how, progress=progress)
    out = _wide_console()
    title = f"{done.target}: {done.train} training, {len(done.true)} test rows ({done.split})"
    out.print(_rich_table(title, HEADINGS, rows_of(done)))
    for verdict in verdicts(done):
        out.print(f"  {verdict}", highlight=False)
    best, *others = done.models
    title = f"{best}, class by class" + ("; of the others --html tells" if others and html_path is None else "")
    out.print(_rich_table(title, class_headings(done), by_class(done, best)))
    if done.cells[0].strange:
        out.print(_rich_table(best, STRANGE_HEADINGS, by_strange(done, best)))
    _write_comparison(as_json(done), page(done), json_path, html_path, out)
