"""Structured logs on standard error: text for people, JSON lines for machines."""

from __future__ import annotations

import logging
import sys

import structlog

from ..settings import Log


def configure(log: Log) -> None:
    as_text = log.format == "text" or (log.format == "auto" and sys.stderr.isatty())
    level = getattr(logging, log.level.upper())
    # kafka-python and others log through the standard library: their warnings are ours to show, their chatter is not.
    logging.basicConfig(stream=sys.stderr, level=max(level, logging.WARNING), format="%(name)s: %(message)s")
    # It retries for ever and says so each time; what fails in the end is raised, and told once, by us.
    logging.getLogger("kafka").setLevel(logging.WARNING if log.level == "debug" else logging.CRITICAL)
    sys.unraisablehook = _tell_unraisable
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


def _tell_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """An error in somebody's finalizer (kafka-python's, of a producer whose broker has gone): one line, not ten."""
    error = f"{type(unraisable.exc_value).__name__}: {unraisable.exc_value}"
    structlog.get_logger().warning("error while cleaning up", error=error, where=repr(unraisable.object)[:200])
