"""Follow a belt while it runs: the live page of `tamis view`, and the report of a replay; the pages of the models."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import structlog

from ... import TamisError
from ...models.store import Store
from ..monitoring.http_server import WebServer
from ..pages.belt_map import BeltMap
from ..pages.charts import page_of, render
from ..services.stop import Stop
from ..settings.tables import Settings
from ..transport.from_settings import ensure, kafka_source
from .model_pages import overview, version_page

log = structlog.get_logger()
Pages = dict[str, Callable[[Any], Any]]  # by their paths

QUIET_S = 10.0  # without messages: then the page says so
REFRESH_MS = 500
BEGIN_S = 15.0  # for a place in the topics
SETTLE_S = 3.0  # without new messages after a replay: the workers have finished


@contextmanager
def following(settings: Settings, belt: BeltMap) -> Iterator[Callable[[], str]]:
    """Feeds a belt with new messages, in a thread; gives a function that returns the problem, or ''."""
    topics = [settings.topics.predictions, settings.topics.decisions]
    ensure(settings, topics)
    group = f"tamis-view-{uuid.uuid4().hex[:8]}"  # a new one each time; it never commits
    source = kafka_source(settings.model_copy(update={"start_at": "latest"}), topics, group, is_kept=False)
    done, ended = threading.Event(), []

    def take() -> None:
        for record in source.poll(0.2):
            if record.unreadable:
                log.warning("left out", place=record.place, error=record.unreadable)
                continue
            decision = record.topic == settings.topics.decisions
            belt.take(record.value, record.headers, decision=decision, sent_s=record.timestamp_s)

    def read() -> None:
        try:
            while not done.is_set():
                take()
        except Exception as error:  # shown on the page: a thread ends silently
            log.exception("stopped following the belt")
            ended.append(f"{type(error).__name__}: {error}")

    with closing(source):
        began_s = time.monotonic()
        while not source.has_begun and time.monotonic() - began_s < BEGIN_S:  # what is sent before that would be missed
            take()
        reader = threading.Thread(target=read, name="view", daemon=True)
        reader.start()
        try:
            yield lambda: ended[0] if ended else source.connection_problem
        finally:
            done.set()
            reader.join(10)


def run_view(settings: Settings, stop: Stop, belt: BeltMap | None, host: str, port: int) -> None:
    """Serves the pages until stopped; without a belt, those of the models alone.

    Raises TamisError: no broker answers, which only the belt needs, or the port cannot be bound.
    """
    pages = _pages_of_models(Store(settings.store), beside_belt=belt is not None)
    with ExitStack() as stack:
        if belt is not None:
            trouble = stack.enter_context(following(settings, belt))
            pages |= _pages_of_belt(belt, lambda: trouble() or _state(belt))
        server = stack.enter_context(WebServer(host, port, pages, "view"))
        what = "the models" if belt is None else "the belt, and the models below /models"
        print(f"{server.url} shows {what}; stop with Ctrl-C", flush=True)
        stop.wait(lambda: True)


def _pages_of_belt(belt: BeltMap, state: Callable[[], str]) -> Pages:
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, Response

    async def whole_page(request: Request) -> Response:
        title = f"Belt of line {belt.line}" if belt.line else "Belt"
        script = render("view.js", refresh_ms=REFRESH_MS)
        return HTMLResponse(page_of(title, script=script, template="view.html.j2"))

    async def fragment(request: Request) -> Response:
        return HTMLResponse(belt.html(state()).encode("utf-8", "replace"))

    return {"/": whole_page, "/belt": fragment}


def _pages_of_models(store: Store, *, beside_belt: bool) -> Pages:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

    async def to_models(request: Request) -> Response:
        return RedirectResponse("/models")

    async def models(request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(overview, store, beside_belt=beside_belt))

    async def version(request: Request) -> Response:
        try:
            return HTMLResponse(await run_in_threadpool(version_page, store, **request.path_params))
        except TamisError as error:
            return PlainTextResponse(f"{error}\n", 404)

    return {"/": to_models, "/models": models, "/models/{name}/{version}": version}


def _state(belt: BeltMap) -> str:
    if not belt.last_message_s:
        return "Waiting for predictions: is a worker running, and are spectra sent?"
    quiet_s = time.monotonic() - belt.last_message_s
    return f"Line {belt.line}" + (f": no messages for {quiet_s:.0f} s." if quiet_s > QUIET_S else " is running.")


def settle(belt: BeltMap, stop: Stop) -> None:
    """Waits until the workers have finished: nothing new for a while."""
    start = time.monotonic()
    stop.wait(lambda: time.monotonic() - max(start, belt.last_message_s) < SETTLE_S)
