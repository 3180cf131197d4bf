"""Structured logs on standard error: text for people, JSON lines for machines."""

from __future__ import annotations

import logging
import sys

import structlog

from ..settings.tables import Log


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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """One line, not ten, for an error in a finalizer, such as that of a producer whose broker is gone."""
    error = f"{type(unraisable.exc_value).__name__}: {unraisable.exc_value}"
    structlog.get_logger().warning("error while cleaning up", error=error, where=repr(unraisable.object)[:200])
