"""A client of model servers: bounded, patient, and synchronous to its caller."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from bon.errors import ServerError, ServerGoneError, ServerPathError
from bon.heartbeat import beat
from bon.records import Drop
from bon.serving.endpoints import Endpoints
from bon.serving.faults import Fault, Refused, check_status, fault_of, not_promised, parsed
from bon.serving.messages import UNEXPECTED, Check, ServerReply, ServerRequest
from bon.serving.patience import Patience, Tried

__all__ = ["Check", "ServerClient", "ServerReply", "ServerRequest"]

_CONNECT_S = 10.0
_IDLE_CONNECTION_S = 3.0
"""Shorter than servers keep one (vLLM: 5 s), or a request would meet one that is just closed."""
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_BEAT_S = 1.0
_MOST_UNPROVEN = 8
"""So many requests tell whether what answers none of them is a model server at all."""


class ServerClient:
    """Asks model servers, several at a time, and asks again where that may help.

    A context manager. Its event loop runs in a thread of its own, so callers stay synchronous.
    Busy servers (429, 408), faults (5xx), timeouts, broken and refused connections, and bodies that
    are not what was promised are asked again, after what Retry-After says or a random, growing
    time; a 429 halves how many are in flight, answers raise it again. Where nothing was answered
    for `patience_s`, the run ends with a ServerError.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        concurrency: int,
        timeout_s: float,
        patience_s: float,
        api_key: str | None,
    ) -> None:
        self.urls = tuple(urls)
        self.retries: Counter[str] = Counter()
        """How often was asked again since it was entered, by cause."""
        self._concurrency, self._timeout_s, self._patience_s = concurrency, timeout_s, patience_s
        self._api_key = api_key

    def __enter__(self) -> ServerClient:
        self.retries.clear()
        self._patience = Patience(self._patience_s)
        self._answered: Tried | None = None  # what the server is known to answer
        self._unanswered = set[Tried]()  # questions that have no answer yet
        self._num_unproven = 0  # of those that got garbage before anything was answered
        self._probes: dict[str | None, asyncio.Task[ServerReply]] = {}
        self._endpoints = Endpoints(self.urls, self._concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._http = self._wait(self._open())
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):  # what is open may be broken already
            self._wait(self._close())
        self._stop_loop()

    def get(self, path: str, url: str | None = None) -> Any:
        """Return the JSON that a path gives, of one server or of any.

        Raises:
            ServerGoneError: it is not reached for `patience_s`.
            ServerError: it wants another key.
            ServerPathError: there is no such path, or no JSON.
        """
        tried = Tried(ServerRequest(path, path), url=url)
        reply: ServerReply = self._wait(self._answer(tried))
        if reply.drop is not None:
            raise ServerPathError(
                "the server does not say what it is asked",
                where=f"{url or self.urls[0]}{path}",
                why=reply.drop.detail,
                next_step="check the URL and how the server was started",
            )
        return reply.body

    def find(self, path: str, url: str | None = None) -> Any | None:
        """Return the JSON that a path gives, none where the server has no such path."""
        try:
            return self.get(path, url)
        except ServerPathError:
            return None

    def ask(self, request: ServerRequest, check: Check | None = None) -> ServerReply:
        """Ask one thing."""
        (reply,) = self.stream([request], check)
        return reply

    def stream(
        self, requests: Iterable[ServerRequest | ServerReply], check: Check | None = None
    ) -> Iterator[ServerReply]:
        """Pull requests lazily and yield their replies in any order.

        So many are in flight as `concurrency` allows for each URL. `check` sees each body. A reply
        is a drop where the request itself is at fault: `server_refused` (400, 413, 422, …), or,
        where the server still answers others, `server_error`, `server_timeout`, `server_lost`,
        `server_garbage`; `server_busy` where it is all that is left, and is sent away for
        `patience_s`. A reply among the requests needs no server, and is passed on at once. Leaving
        early cancels what is in flight.

        Raises:
            ServerGoneError: nothing was answered for too long.
            ServerPathError: there is no such path or model.
            ServerError: the key is refused, or what answers is no model server.
        """
        unproven: list[ServerReply] = []
        for reply in self._replies(requests, check):
            if self._answered is not None:
                yield from unproven
                unproven.clear()
            elif reply.drop and reply.drop.reason == "server_garbage":
                unproven.append(reply)  # until something is answered
                continue
            yield reply
        if unproven and self._answered is None:
            raise self._no_model_server(str(unproven[0].drop and unproven[0].drop.detail))
        yield from unproven

    def _replies(
        self, requests: Iterable[ServerRequest | ServerReply], check: Check | None
    ) -> Iterator[ServerReply]:
        waiting, ended = iter(requests), queue.SimpleQueue[Future[ServerReply]]()
        in_flight: set[Future[ServerReply]] = set()
        more = True
        try:
            while more or in_flight:
                while more and len(in_flight) < self._endpoints.num_at_once:
                    request = next(waiting, None)
                    if request is None:
                        more = False
                        break
                    if isinstance(request, ServerReply):
                        yield request
                        continue
                    future = self._submit(Tried(request, request.check or check))
                    in_flight.add(future)
                    future.add_done_callback(ended.put)
                if in_flight:
                    future = _first_of(ended)
                    in_flight.discard(future)
                    yield future.result()
        finally:
            for future in in_flight:
                future.cancel()

    def _submit(self, tried: Tried) -> Future[ServerReply]:
        return asyncio.run_coroutine_threadsafe(self._answer(tried), self._loop)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _open(self) -> Any:
        import httpx

        most = self._concurrency * len(self.urls)
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            # the whole answer has its own limit, also where it comes byte by byte
            timeout=httpx.Timeout(None, connect=min(_CONNECT_S, self._timeout_s / 2)),
            limits=httpx.Limits(
                max_connections=most + 1,
                max_keepalive_connections=most + 1,
                keepalive_expiry=_IDLE_CONNECTION_S,
            ),
            # a proxy of the environment is not for this machine
            mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
        )

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._http.aclose()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _answer(self, tried: Tried) -> ServerReply:
        """Ask until there is an answer or a reason why there is none."""
        from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

        growing = wait_random_exponential(_FIRST_WAIT_S, max=_LONGEST_WAIT_S)

        def wait_s(state: Any) -> float:
            fault = state.outcome.exception()
            if fault.wait_s is not None:
                return float(min(fault.wait_s, self._patience_s)) * random.uniform(1.0, 1.1)
            is_away = fault.cause == "connection" and not fault.reason
            return 0.0 if is_away else growing(state)  # the endpoint itself is left alone

        retrying = AsyncRetrying(retry=retry_if_exception_type(Fault), wait=wait_s)
        is_question = tried.request.body is not None
        if is_question:
            self._unanswered.add(tried)
        try:
            reply: ServerReply = await retrying(self._attempt, tried)
        finally:
            self._unanswered.discard(tried)
        return reply

    async def _attempt(self, tried: Tried) -> ServerReply:
        key = tried.request.key
        url = await self._alive(tried) if tried.is_suspect else tried.url
        try:
            return ServerReply(key, await self._ask(tried, url))
        except Refused as refusal:
            self._patience.note_life()
            return ServerReply(key, drop=Drop("server_refused", str(refusal)))
        except Fault as fault:
            drop = await self._verdict(tried, fault)
            if drop is not None:
                return ServerReply(key, drop=drop)
            self.retries[fault.cause] += 1
            raise

    async def _ask(self, tried: Tried, url: str | None, *, is_probe: bool = False) -> Any:
        """Ask once.

        Raises:
            Fault, Refused, ServerError: there is no answer.
        """
        endpoint = await self._endpoints.take(url, avoid=tried.last_url)
        self._patience.note_attempt(tried, endpoint.url)
        try:
            body = await self._body(tried, endpoint.url)
        except Fault as fault:
            if fault.cause != "garbage" or self._answered is not None:
                endpoint.note(fault, tried.asked_s)
            raise
        except Refused:
            endpoint.is_well()
            raise
        finally:
            self._endpoints.give_back(endpoint)
        endpoint.note_answer()
        self._patience.note_answer(tried, is_probe=is_probe)
        if self._answered is None and tried.request.body is not None:
            self._answered = tried
        return body

    async def _body(self, tried: Tried, url: str) -> Any:
        request = tried.request
        method = "GET" if request.body is None else "POST"
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.request(method, url + request.path, json=request.body)
        except Exception as error:
            fault = fault_of(error, self._timeout_s)
            if fault is None:
                raise
            raise fault from error
        check_status(response, self._api_key)
        body = parsed(response, self._api_key)
        try:
            if tried.check is not None:
                tried.check(body)
        except UNEXPECTED as error:
            why = str(error) or type(error).__name__
            raise not_promised(why, response, self._api_key) from None
        return body

    async def _verdict(self, tried: Tried, fault: Fault) -> Drop | None:
        """Return why a request is given up, none where it is to be asked again.

        Raises:
            ServerError: nothing was answered for too long.
        """
        is_question = tried.request.body is not None
        if fault.cause == "garbage" and not is_question:
            return Drop(fault.reason, fault.detail)  # a page for people, at a path that it has not
        may_be_at_fault = self._patience.note_fault(tried, fault)
        if fault.cause == "garbage" and self._answered is None:
            self._check_unproven(tried, fault)
            return Drop(fault.reason, fault.detail) if may_be_at_fault else None
        if may_be_at_fault:
            if tried.is_suspect or self._patience.has_answered(tried.last_url, tried.asked_s):
                return Drop(fault.reason, fault.detail)
            # what is answered now may have been down when this one failed
            tried.suspect(needs_all=not await self._answers_now(tried.last_url, tried))
        is_stuck = fault.is_busy and self._patience.is_stuck(tried)
        if is_stuck and await self._answers_now(tried.last_url, tried):
            return Drop("server_busy", fault.detail)
        if self._patience.is_over():
            what = f"nothing was answered for {self._patience_s:g} s"
            raise self._failure(ServerGoneError, fault.detail, what)
        return None

    def _check_unproven(self, tried: Tried, fault: Fault) -> None:
        """Raise where several requests, and all that are open, got nothing but garbage."""
        self._num_unproven += tried.num_faults[fault.reason] == 1
        is_all = all(one.num_faults[fault.reason] for one in self._unanswered)
        if (is_all and self._num_unproven >= _MOST_UNPROVEN) or self._patience.is_over():
            raise self._no_model_server(fault.detail)

    async def _answers_now(self, url: str | None, tried: Tried) -> bool:
        """Tell whether a server that failed a request answers what was answered before."""
        if self._answered is None or self._answered.request is tried.request:
            return False
        probe = Tried(self._answered.request, self._answered.check)
        try:
            await self._ask(probe, url, is_probe=True)
        except (Fault, Refused):
            return False
        return True

    async def _alive(self, tried: Tried) -> str | None:
        """Wait until a server answers others again; returns which is to be asked.

        One that a request brings down, and that is started again, is so told from one that is down.
        """
        known = self._answered
        urls = self.urls if tried.url is None else (tried.url,)
        for url in sorted(urls, key=lambda url: url == tried.last_url):
            if self._patience.has_answered(url, tried.fault_s):
                return url
        if known is None or known.request is tried.request:
            return tried.url
        task = self._probes.get(tried.url)
        if task is None or task.done():  # one for all that wait
            probe = Tried(known.request, known.check, tried.url)
            task = self._probes[tried.url] = asyncio.create_task(self._answer(probe))
        await asyncio.shield(task)
        return next((url for url in urls if self._patience.has_answered(url, tried.fault_s)), None)

    def _no_model_server(self, why: str) -> ServerError:
        return self._failure(ServerError, why, "what answers is no model server that bon knows")

    def _failure(self, kind: type[ServerError], why: str, what: str) -> ServerError:
        return kind(
            what,
            where=", ".join(self.urls),
            why=why,
            next_step="see the server's own log; what is committed stays: start the server and run "
            "the same command again",
        )


def _first_of(ended: queue.SimpleQueue[Future[ServerReply]]) -> Future[ServerReply]:
    """Wait for a reply; how long that may take is bounded by the client's own limits."""
    while True:
        beat()
        with suppress(queue.Empty):
            return ended.get(timeout=_BEAT_S)
