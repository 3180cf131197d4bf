"""Structured logs on standard error: text for people, JSON lines for machines.

A service writes them without waiting for their reader; see `log_writer`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from ..settings.tables import Log
from .log_writer import LogWriter


def configure(log: Log | None = None) -> None:
    """None is for a command in a terminal, which prints its own results: its log shows only problems, as text."""
    log = log or Log(format="text", level="warning")
    as_text = log.format == "text" or (log.format == "auto" and sys.stderr.isatty())
    level = getattr(logging, log.level.upper())
    # Other libraries log through the standard library: their warnings are shown, their chatter is not.
    logging.basicConfig(stream=sys.stderr, level=max(level, logging.WARNING), format="%(name)s: %(message)s")
    # kafka-python logs every retry; what fails in the end is raised, and logged once by us.
    logging.getLogger("kafka").setLevel(logging.WARNING if log.level == "debug" else logging.CRITICAL)
    sys.unraisablehook = _log_unraisable
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if as_text
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    if isinstance(sys.stderr, LogWriter):
        sys.stderr.report = _dropped


def _dropped(lines: int, why: str) -> str:
    rendering: Any = structlog.wrap_logger(structlog.ReturnLogger())
    text = rendering.warning("lines of this log could not be written, and are lost", lines=lines, reason=why)
    return f"{text}\n" if text else ""  # None where warnings are not logged


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """One line, not ten, for an error in a finalizer, such as that of a producer whose broker is gone."""
    error = f"{type(unraisable.exc_value).__name__}: {unraisable.exc_value}"
    structlog.get_logger().warning("error while cleaning up", error=error, where=repr(unraisable.object)[:200])
