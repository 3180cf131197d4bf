"""`tamis tail`: what workers send, printed as it arrives."""

import math
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing

import orjson
import structlog

from ..messages.predictions import decode_predictions
from ..settings.tables import Settings
from ..transport.from_settings import ensure, kafka_source

log = structlog.get_logger()

SAY_WAITING_S = 5.0


def run_tail(settings: Settings, stop: Callable[[], bool], topic: str, new_only: bool, limit: int | None) -> None:
    """Prints what workers send, one line of JSON per spectrum, decision or reject, until stopped or until `limit`."""
    rejects = topic == settings.topics.rejects
    ensure(settings, [topic])
    settings = settings.model_copy(update={"start_at": "latest" if new_only else "earliest"})
    group = f"tamis-tail-{uuid.uuid4().hex[:8]}"  # of our own, without commits
    printed, note_at = 0, time.monotonic() + SAY_WAITING_S
    with closing(kafka_source(settings, [topic], group, is_kept=False)) as source:
        while not stop() and (limit is None or printed < limit):
            if time.monotonic() > note_at:
                note_at = math.inf  # once is enough
                print(f"nothing more in {topic} yet; waiting (Ctrl-C stops)", file=sys.stderr, flush=True)
            for record in source.poll(0.2):
                note_at = max(note_at, time.monotonic() + SAY_WAITING_S)
                if record.unreadable:
                    log.warning("left out", place=record.place, error=record.unreadable)
                    continue
                try:
                    rows = [dict(record.headers)] if rejects else decode_predictions(record.value, record.headers)
                except (ValueError, OverflowError) as error:  # Arrow's and JSON's errors are ValueErrors
                    log.warning("no predictions", place=record.place, error=str(error).partition("\n")[0])
                    continue
                for row in rows[: None if limit is None else limit - printed]:
                    print(orjson.dumps(row, option=orjson.OPT_UTC_Z).decode(), flush=True)
                    printed += 1
