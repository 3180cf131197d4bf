"""The services (`tamis worker`, `tamis trainer`), and what is run beside them: `broker`, `doctor`, `demo`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from ... import BadSettings, BrokerAbsent, Fenced, NotInstalled, Stalled, TamisError, TooManyRejects
from ..services.stop import Stop
from .options import CameraFileOptions, ServiceOptions, command, new_app

app = new_app()

# For a supervisor: 2 and 4 need a person; after the others it starts the process again.
EXIT_STATUS = {BadSettings: 2, NotInstalled: 2, Fenced: 3, TooManyRejects: 4, Stalled: 75}


@contextmanager
def _errors_in_the_log(what: str) -> Iterator[None]:
    """Logs why a service ended, and exits with the status for its supervisor."""
    try:
        yield
    except TamisError as error:
        import structlog

        structlog.get_logger().critical(f"{what} ended", error=str(error), kind=type(error).__name__)
        raise typer.Exit(EXIT_STATUS.get(type(error), 1)) from error


@command(app)
def worker(
    *,
    source: Annotated[
        list[Path] | None, Option("--from", help="Read files, folders or patterns instead of Kafka. Repeatable.")
    ] = None,
    sink: Annotated[Path | None, Option("--to", help="Write into this folder instead of Kafka.")] = None,
    line: Annotated[str | None, Option(help="With --from: the line's name, whatever the file says.")] = None,
    file_options: CameraFileOptions,
    service_options: ServiceOptions,
) -> None:
    """Predict incoming spectra until stopped. SIGTERM or Ctrl-C finishes the messages in hand.

    \b
    Examples:
      tamis worker --config line.toml
      TAMIS_BROKERS=kafka:9092 TAMIS_PREDICTIONS__ENCODING=json tamis worker
      tamis worker --from tablets.parquet --to out/
      tamis worker --from 'scans/*.spc' --to out/
    """
    stop = Stop()
    from ..monitoring.log_writer import free_standard_error
    from ..services.blas import set_up_blas

    free_standard_error()
    set_up_blas()  # before numpy is imported
    settings = service_options.settings(quiet=False)
    from ..services.run import run_worker

    if not source and (given := [name for name, value in {"line": line, **vars(file_options)}.items() if value]):
        raise BadSettings(f"--{given[0].replace('_', '-')} is for files: expected --from FILE as well")
    reading = file_options.reading(line=line)
    with _errors_in_the_log("worker"):
        run_worker(settings, stop, source or None, sink, reading)


@command(app)
def trainer(service_options: ServiceOptions) -> None:
    """Keep a model up to date from the stream and from lab values. Learns, tests and publishes until stopped.

    \b
    Examples:
      tamis trainer --config line.toml
      TAMIS_TRAINER__MODEL=glucose TAMIS_TRAINER__LABEL_SPAN_S=600 tamis trainer
    """
    stop = Stop()
    from ..monitoring.log_writer import free_standard_error

    free_standard_error()
    settings = service_options.settings(quiet=False)
    from ..services.run import run_trainer

    with _errors_in_the_log("trainer"):
        run_trainer(settings, stop)


@command(app)
def broker(
    kind: Annotated[Literal["noida", "tansu"], Option(help="noida serves kcat; tansu fails over.")] = "noida",
    port: Annotated[int, Option(min=0, max=65535, help="On loopback; 0 takes any free port.")] = 9092,
) -> None:
    """Run an embedded Kafka broker, for trials and tests only. It keeps no data. A killed replay's open transaction
    may hide the messages that are sent after it.

    \b
    Example:
      tamis broker --port 9092
    """
    stop = Stop()
    from ..transport.embedded_broker import EmbeddedBroker

    with EmbeddedBroker(kind, port) as running:
        print(f"{kind} broker on {running.bootstrap}; Ctrl-C stops it and deletes its data", flush=True)
        stop.wait(while_true=running.is_running)
        if not stop():
            raise BrokerAbsent(f"the {kind} broker on {running.bootstrap} ended by itself; its data are gone")
        running.kill()  # its data are not kept: a slow shutdown would only accept messages and lose them
    print("broker stopped", flush=True)


@command(app)
def doctor(service_options: ServiceOptions) -> None:
    """Check settings, broker, topics, store and models. Says what to do about each problem, and exits with 1 if there
    is one.

    \b
    Example:
      tamis doctor --config line.toml
    """
    from ..tools.doctor import examine

    findings = examine(service_options.settings())
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@command(app)
def demo(
    out: Annotated[Path, Option(help="Folder for the report, the store and the worker's log.")] = Path("demo"),
    json: Annotated[Path | None, Option(help="Write the figures to this file.")] = None,
    rate: Annotated[float, Option(min=1.0, max=1e9, help="Spectra per second.")] = 200.0,
    learn: Annotated[bool, Option("--learn", help="Learn from laboratory values that arrive an hour late.")] = False,
) -> None:
    """Follow a real fermentation, and compare with HPLC. Fits a model, replays the spectra through Kafka and predicts
    them in a worker process.

    \b
    Examples:
      tamis demo
      tamis demo --learn
      tamis demo --rate 1000 --json figures.json
    """
    stop = Stop()
    from ..demo.fermentation import run_demo
    from ..demo.learning import run_learning_demo
    from ..monitoring.logs import configure

    configure()
    if not (run_learning_demo(out, json, stop) if learn else run_demo(out, json, rate, stop)):
        raise typer.Exit(1)
