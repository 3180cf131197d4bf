"""What a person watches a line with: `tamis tail`, `top`, `view` and `drift`."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from ... import BadSettings
from ..services.stop import Stop
from .options import BrokerOptions, ConfigOptions, ServiceOptions, command, new_app

app = new_app()
drift = new_app(help="List the drift references of lines, and forget one.")


@command(app)
def tail(
    *,
    rejects: Annotated[bool, Option("--rejects", help="Print rejects and their reasons.")] = False,
    decisions: Annotated[bool, Option("--decisions", help="Print decisions, one per object.")] = False,
    new_only: Annotated[bool, Option("--new", help="Only what arrives from now on.")] = False,
    limit: Annotated[int | None, Option(min=1, help="Stop after this many.")] = None,
    broker_options: BrokerOptions,
) -> None:
    """Print predictions, decisions or rejects as they arrive. One JSON object per spectrum, whatever the encoding of
    the messages.

    \b
    Examples:
      tamis tail --new
      tamis tail --limit 5 | jq .glucose
      tamis tail --rejects
      tamis tail --decisions --new | jq -r '[.object_id, .action, .reason] | @tsv'
    """
    if rejects and decisions:
        raise BadSettings("--rejects and --decisions exclude each other: give one")
    stop = Stop()
    settings = broker_options.settings()
    from ..tools.tail import run_tail

    topics = settings.topics
    topic = topics.rejects if rejects else topics.decisions if decisions else topics.predictions
    run_tail(settings, stop, topic, new_only, limit)


@command(app)
def top(
    *,
    url: Annotated[list[str] | None, Option(help="http://host:port of a service; else the settings'.")] = None,
    every: Annotated[float, Option(min=0.2, max=60.0, help="Seconds between two screens.")] = 1.0,
    once: Annotated[bool, Option("--once", help="Print one screen and exit.")] = False,
    config_options: ConfigOptions,
) -> None:
    """Watch rates, trust, drift, lag and models in the terminal. For a box without Grafana.

    \b
    Examples:
      tamis top
      tamis top --once --url http://127.0.0.1:9108
    """
    stop = Stop()
    if wrong := [one for one in url or [] if not one.startswith(("http://", "https://"))]:
        raise BadSettings(f"--url expects http://host:port, got {wrong[0]!r}")
    if not url:
        settings = config_options.settings()
        host = "127.0.0.1" if settings.metrics.host in ("0.0.0.0", "::") else settings.metrics.host  # noqa: S104
        url = [f"http://{host}:{port}" for port in (settings.metrics.port, settings.trainer.metrics_port)]
    from ..tools.top import run_top

    if not run_top([one.rstrip("/") for one in url], every, once, stop):
        raise typer.Exit(1)


@command(app)
def view(
    *,
    line: Annotated[str | None, Option(help="The line to watch; else the first line with predictions.")] = None,
    lines: Annotated[int, Option(min=50, max=12_000, help="Number of scan lines to show.")] = 900,
    host: Annotated[str, Option(help="Loopback by default: the page reveals much about a plant.")] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 takes any free port.")] = 9110,
    models: Annotated[bool, Option("--models", help="The models alone: needs no broker.")] = False,
    service_options: ServiceOptions,
) -> None:
    """Show the belt and the models in a browser. Of the belt: its objects, the decisions about them, and how late these
    are. Of each version in the store: the page of `tamis fit --report`.

    \b
    Examples:
      tamis view --line belt
      tamis view --models
    """
    stop = Stop()
    settings = service_options.settings()
    from ..pages.belt_map import BeltMap
    from ..tools.view import run_view

    run_view(settings, stop, None if models else BeltMap(line, lines), host, port)


@command(drift, "list")
def list_references(config_options: ConfigOptions) -> None:
    """List the lines with a reference, complete or still learning. The time is that of its last change.

    \b
    Example:
      tamis drift list --config line.toml
    """
    from datetime import UTC, datetime

    from ..drift.reference_file import references

    folder = Path(config_options.settings().drift.folder)
    found = references(folder)
    if not found:
        print(f"no references in {folder}; a worker writes one for each line once it has learned it")
    for line, path in sorted(found.items()):
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        print(f"{line}  {since}  {path}")


@command(drift)
def forget(line: Annotated[str, Argument(help="From `tamis drift list`.")], config_options: ConfigOptions) -> None:
    """Forget a line's reference, so that it learns a new one. After a lasting change: a new lamp, a new product.

    \b
    Example:
      tamis drift forget nir1
    """
    from ..drift.reference_file import references

    folder = Path(config_options.settings().drift.folder)
    found = references(folder)
    if line not in found:
        raise BadSettings(f"no reference of line {line!r} in {folder}; available: {', '.join(sorted(found)) or 'none'}")
    found[line].unlink()
    print(f"{line}: reference forgotten; the worker learns a new one from the next spectra")
