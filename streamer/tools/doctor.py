"""`tamis doctor`: checks that everything is in place, and says what to do if it is not."""

import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from typing import NamedTuple

from ... import TamisError, __version__
from ...models.store import Store
from ..settings.tables import Settings
from ..transport.client import UNSEEN, ensure_topics
from ..transport.security import weaknesses


class Finding(NamedTuple):
    ok: bool
    what: str
    text: str


def examine(settings: Settings) -> list[Finding]:
    """Makes every check, whatever the others found. None changes anything."""
    checks: dict[str, Callable[[Settings], str]] = {"settings": _settings, "broker": _broker, "store": _store}
    checks |= {f"model of line {name!r}": partial(_model, line=name) for name in settings.lines}
    if any(line.camera.pixels for line in settings.lines.values()):
        checks["cameras"] = _cameras
    findings = []
    for what, check in (checks | {"metrics": _metrics}).items():
        try:
            findings.append(Finding(True, what, check(settings)))
        except TamisError as error:
            findings.append(Finding(False, what, " / ".join(str(error).splitlines())))
    return findings


def _settings(settings: Settings) -> str:
    kafka = settings.printable()["kafka"]
    with_kafka = f", kafka {kafka}" if kafka else ""
    return f"tamis {__version__}, group {settings.group}, topics {settings.topics.prefix}.*{with_kafka}"


def _broker(settings: Settings) -> str:
    topics = settings.topics
    names = [topics.spectra, topics.predictions, topics.rejects]
    names += [topics.decisions] if settings.decides else []
    missing = ensure_topics(settings.brokers, names, topics.partitions, create=None, client_settings=settings.kafka)
    if missing and not topics.create:
        raise TamisError(
            f"{settings.brokers} answers but lacks {', '.join(missing)}: create them, or set topics.create; {UNSEEN}"
        )
    later = f"; {', '.join(missing)} will be created by the worker" if missing else ""
    weak = "".join(f"; {weakness}" for weakness in weaknesses(settings.kafka))
    return f"{settings.brokers} answers{later}{weak}"


def _cameras(settings: Settings) -> str:
    from ..processing.cameras import Cameras

    Cameras().check(settings.lines)
    return ", ".join(f"{name}: {one.camera.pixels} pixels" for name, one in settings.lines.items() if one.camera.pixels)


def _store(settings: Settings) -> str:
    store = Store(settings.store)
    names = store.names()
    if not store.root.exists():
        raise TamisError(f"{store.root} does not exist; `tamis fit ... --store {store.root}` creates it")
    read_only = "read-only, which is enough for a worker but not for `tamis fit`"
    access = "writable" if os.access(store.root, os.W_OK) else read_only
    return f"{store.root.resolve()}, models: {', '.join(names) or 'none yet'}; {access}"


def _model(settings: Settings, line: str) -> str:
    from ..processing.line_rules import LineRules

    table, store = settings.lines[line], Store(settings.store)
    version = store.current(table.model)
    model = store.serve(table.model, version)
    facts = [f"{table.model} {version}: {model.kind} for {', '.join(model.targets)} on {model.grid}"]
    if rules := table.decide.rules:
        of_line = LineRules(table.decide, table.model, model, version)
        facts += [f"{len(rules)} {'rule is' if len(rules) == 1 else 'rules are'} valid", *of_line.thresholds]
    return "; ".join(facts)


def _metrics(settings: Settings) -> str:
    host, port = settings.metrics.host, settings.metrics.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except UnicodeError as error:
            raise TamisError(f"metrics.host: expected a host, got {host!r:.80}") from error
        except OSError as error:
            if running := _running_worker(host, port):
                return running
            raise TamisError(f"cannot listen on {host}:{port} ({error.strerror}): set another metrics.port") from error
    return f"{host}:{port or 'any port'} is free"


def _running_worker(host: str, port: int) -> str:
    """The state of a worker that listens there; '' if there is none."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=2) as answer:
            return f"a worker answers at {host}:{port}, ready" if answer.read() == b"ok\n" else ""
    except urllib.error.HTTPError as error:
        raise TamisError(f"a worker answers at {host}:{port}, not ready: {error.read().decode().strip()}") from error
    except (OSError, HTTPException):  # something else listens there
        return ""
