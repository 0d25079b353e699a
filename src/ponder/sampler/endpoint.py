"""A `Sampler` over an OpenAI-compatible endpoint, on the standard library alone."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from ponder.dialogue.messages import Conversation
from ponder.sampler import http
from ponder.sampler.delivery import gathered
from ponder.sampler.dialect import Dialect, request_body
from ponder.sampler.protocol import (
    AT_ONCE,
    Capabilities,
    Completion,
    Delivery,
    Done,
    Request,
    Streamed,
    check_request,
    estimated_tokens,
)
from ponder.sampler.replies import PartialChoice, Replies, error_code, until
from ponder.types import InvalidRequest, RateLimited, RefusedByEndpoint, SamplerError, TopLogprobs, Usage

T = TypeVar("T")

KEYS_BY_HOST = {"api.openai.com": "OPENAI_API_KEY", "api.deepseek.com": "DEEPSEEK_API_KEY"}
ANY_KEY = "PONDER_API_KEY"
BUSY = frozenset({429, 503, 529})  # statuses by which a server says that it takes no more for now
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class Retry(Exception):
    """An attempt that may be made again, after `wait` seconds where the server says so."""

    def __init__(self, why: str, wait: float | None = None, status: int | None = None) -> None:
        super().__init__(why)
        self.wait, self.status = wait, status


class EndpointSampler:
    """Samples from a server. Cancelling closes the connection, by which servers abort the work.

    base_url: up to and with the version ("http://localhost:8000/v1").
    model: its name there; None: the only one served.
    api_key: None: from the environment, PONDER_API_KEY, or for their own hosts OPENAI_API_KEY and DEEPSEEK_API_KEY.
    timeout: seconds for connecting and for every wait for more bytes.
    retries: further attempts after a connection error, a time-out, a broken response, or one of the statuses in
        RETRIED; waits double from `backoff` seconds (with jitter) up to `max_wait`, or are what Retry-After says; a
        longer one is an error. A stream is only tried again while nothing of it was passed on.
    concurrency: requests under way at once, per event loop.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        dialect: Dialect | str = Dialect.OPENAI,
        timeout: float = 300.0,
        retries: int = 4,
        backoff: float = 0.5,
        max_wait: float = 60.0,
        concurrency: int = 16,
    ) -> None:
        self._url = http.Url.parse(base_url)
        if dialect not in list(Dialect):
            raise InvalidRequest(f"there is no dialect {dialect!r}: choose {', '.join(Dialect)}")
        if concurrency < 1 or retries < 0 or timeout <= 0 or backoff < 0 or max_wait < 0:
            raise InvalidRequest(
                "concurrency must be at least 1, timeout above 0, and retries, backoff and max_wait at least "
                f"0 (got {concurrency}, {timeout}, {retries}, {backoff} and {max_wait})"
            )
        self.dialect = Dialect(dialect)
        self._model = model
        self._key = api_key if api_key is not None else _key_from_environment(self._url.host)
        if self._key is not None and not (self._key.isascii() and self._key.isprintable()):
            raise InvalidRequest(
                "the API key holds characters that a header cannot carry (a line break, perhaps): copy it again"
            )
        self._timeout, self._retries, self._backoff, self._max_wait = timeout, retries, backoff, max_wait
        self._concurrency = concurrency
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._closed = False

    def __repr__(self) -> str:
        return f"EndpointSampler({self._where!r}, model={self._model!r}, dialect={self.dialect.value!r})"

    @property
    def name(self) -> str:
        return self._model or self._where

    @property
    def capabilities(self) -> Capabilities:
        """None: the API does not report any."""
        return Capabilities()

    @property
    def _where(self) -> str:
        return f"http{'s' if self._url.secure else ''}://{self._url.host}:{self._url.port}{self._url.path}"

    async def sample(self, request: Request) -> list[Completion]:
        """Raises InvalidRequest for what the wire cannot express or the server refuses, SamplerError after retries.

        Under DEEPSEEK n completions are n requests, each with its own seed, and each billed with its prompt. With
        `seconds`, the answer is streamed, so that what came in time can be given back; such completions end with
        StopReason.DEADLINE, billed by the server's running count, or by the pieces that came (`usage_estimated`).
        """
        self._check(request)
        if self.dialect is Dialect.DEEPSEEK and request.n > 1:
            work = [asyncio.ensure_future(self._whole(each)) for each in _one_by_one(request)]
            try:
                return [completions[0] for completions in await asyncio.gather(*work)]
            finally:
                for each in work:
                    each.cancel()
        return await self._whole(request)

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        """Text and calls as they come; all Dones at the end, when the server has sent its bill. Raises as `sample`."""
        if not delivery.deltas:
            whole = self._ends(request)
            async with aclosing(until(whole, request.n, None, partial(_spent, request, ()), delivery.unread)) as ends:
                async for end in ends:
                    delivery.end()
                    yield end
            return
        async with aclosing(gathered(self._pieces(request, delivery), delivery.gather)) as pieces:
            async for piece in pieces:
                yield piece

    async def _ends(self, request: Request) -> AsyncGenerator[Streamed, None]:
        for index, completion in enumerate(await self.sample(request)):
            yield Done(index, completion)

    async def _pieces(self, request: Request, delivery: Delivery) -> AsyncGenerator[Streamed, None]:
        self._check(request)
        deadline = None if request.seconds is None else asyncio.get_running_loop().time() + request.seconds
        singles = _one_by_one(request) if self.dialect is Dialect.DEEPSEEK else [request]
        for offset, each in enumerate(singles):
            attempts: list[Replies] = []
            unread = None if delivery.unread is None else partial(_unread, delivery.unread, offset)
            bill = partial(_spent, each, attempts)
            async with aclosing(until(self._streamed(each, attempts), each.n, deadline, bill, unread)) as events:
                async for event in events:
                    if isinstance(event, Done):
                        delivery.end()
                    yield replace(event, index=event.index + offset)

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        raise InvalidRequest(f"{self.name} does not give log-probabilities of a prompt: use a local model")

    async def certainty(self, ids: Sequence[int], first: int) -> float:
        raise InvalidRequest(f"{self.name} does not give whole distributions: use a local model")

    def gather(self, requests: int) -> None:
        """Nothing is held back here."""

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        return estimated_tokens(prompt)

    async def stats(self) -> None:
        return None

    async def close(self) -> None:
        """Accept nothing more. Connections live no longer than their requests."""
        self._closed = True

    # One request, with its retries ------------------------------------------------------------------------------------

    async def _whole(self, request: Request) -> list[Completion]:
        if request.seconds is not None:
            async with aclosing(self.stream(request)) as events:
                return [event.completion async for event in events if isinstance(event, Done)]
        body = request_body(request, await self._model_name(), self.dialect, stream=False)

        async def attempt() -> list[Completion]:
            async with self._sent("POST", "/chat/completions", body) as response:
                replies = Replies(request.n)
                for _ in replies.take(_object(await response.body())):
                    pass
                return replies.completions()

        return await self._retried(attempt)

    async def _streamed(self, request: Request, attempts: list[Replies]) -> AsyncGenerator[Streamed, None]:
        """attempts: what came of each, the last one the latest; only that one has passed anything on."""
        body = request_body(request, await self._model_name(), self.dialect, stream=True)
        tried = 0
        while True:
            passed_on = False
            try:
                attempts.append(Replies(request.n))
                async with aclosing(self._events(attempts[-1], body)) as events:
                    async for event in events:
                        passed_on = True
                        yield _with_failed(event, request, attempts) if isinstance(event, Done) else event
                return
            except (Retry, OSError, TimeoutError) as error:
                if passed_on:
                    raise SamplerError(f"{self._where}: the stream broke off: {self._explained(error)}") from error
                await self._pause(error, tried)
                tried += 1

    async def _events(self, replies: Replies, body: dict[str, Any]) -> AsyncGenerator[Streamed, None]:
        async with self._sent("POST", "/chat/completions", body) as response:
            replies.begun = True
            async for line in response.lines():
                data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                if data == "[DONE]":
                    break
                if data:
                    for delta in replies.take(_object(data.encode())):
                        yield delta
            else:
                raise Retry("the stream ended before the response was complete")
            for index, completion in enumerate(replies.completions()):
                yield Done(index, completion)

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        tried = 0
        while True:
            try:
                return await attempt()
            except (Retry, OSError, TimeoutError) as error:
                await self._pause(error, tried)
                tried += 1

    async def _pause(self, error: Exception, tried: int) -> None:
        """Wait before the next attempt, or raise SamplerError where there is none."""
        wait, status = (error.wait, error.status) if isinstance(error, Retry) else (None, None)
        attempts = f"{tried + 1} attempt{'s' if tried else ''}"
        why = None
        if tried >= self._retries:
            why = f"{self._where} failed after {attempts}: {self._explained(error)}"
        elif wait is not None and wait > self._max_wait:
            why = (
                f"{self._where} asks to wait {wait:.0f} s, longer than max_wait ({self._max_wait:g} s): "
                f"{self._explained(error)}"
            )
        if why is not None:
            raise (RateLimited(why, retry_after=wait) if status in BUSY else SamplerError(why)) from error
        doubled = min(self._max_wait, self._backoff * 2**tried)
        await asyncio.sleep(wait if wait is not None else doubled * random.uniform(0.5, 1.0))

    @asynccontextmanager
    async def _sent(self, method: str, path: str, body: dict[str, Any] | None) -> AsyncIterator[http.HttpResponse]:
        """A successful response, within the concurrency limit; every other status is an error of its kind."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = b"" if body is None else json.dumps(body).encode()
        loop = asyncio.get_running_loop()
        gate = self._gates.setdefault(loop, asyncio.Semaphore(self._concurrency))
        async with gate, http.request(self._url, method, path, headers, data, self._timeout) as response:
            if response.status != 200:
                self._refuse(response, await response.body())
            yield response

    def _refuse(self, response: http.HttpResponse, body: bytes) -> None:
        status, said = response.status, self._scrubbed(_complaint(body))
        if status in RETRIED:
            raise Retry(f"status {status}: {said}", _retry_after(response.headers.get("retry-after")), status)
        if status in (401, 403):
            raise SamplerError(f"{self._where} refuses the API key (status {status}): set api_key or {ANY_KEY}: {said}")
        if 400 <= status < 500:
            raise RefusedByEndpoint(f"{self._where} refuses the request (status {status}): {said}", code=_code(body))
        raise SamplerError(f"{self._where} answered with status {status}: {said}")

    async def _model_name(self) -> str:
        if self._model is None:

            async def attempt() -> list[str]:
                async with self._sent("GET", "/models", None) as response:
                    listed = _object(await response.body()).get("data") or []
                    return [str(each.get("id")) for each in listed if isinstance(each, dict)]

            names = await self._retried(attempt)
            if len(names) != 1:
                raise RefusedByEndpoint(
                    f"{self._where} serves {', '.join(names) or 'no model'}: name the model you mean"
                )
            self._model = names[0]
        return self._model

    def _check(self, request: Request) -> None:
        if self._closed:
            raise SamplerError(f"{self._where}: this sampler is closed: make a new one")
        check_request(request)

    def _explained(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"nothing came for {self._timeout:g} s"
        return self._scrubbed(str(error) or type(error).__name__)

    def _scrubbed(self, text: str) -> str:
        """Servers may echo the key; nothing of ours repeats it."""
        return text.replace(self._key, "[the API key]") if self._key else text


def _failed(request: Request, attempts: Sequence[Replies]) -> Usage:
    """What responses have cost that broke off before anything of them was passed on."""
    prompt = Usage(prompt_tokens=estimated_tokens(request.prompt))
    return sum((sum(each.spent() or [prompt], Usage()) for each in attempts if each.begun), Usage())


def _with_failed(done: Done, request: Request, attempts: Sequence[Replies]) -> Done:
    """The end of a completion. The first one pays for the attempts before the last."""
    failed = Usage() if done.index else _failed(request, attempts[:-1])
    if failed == Usage():
        return done
    return Done(0, replace(done.completion, usage=done.completion.usage + failed, usage_estimated=True))


def _spent(request: Request, attempts: Sequence[Replies], choice: PartialChoice) -> Usage:
    """What a completion without its end has cost: by the server's running count, or else by the pieces that came."""
    if not attempts:
        return Usage()
    counted = attempts[-1].spent()
    before = Usage() if choice.index else _failed(request, attempts[:-1])
    if counted is not None:
        return counted[choice.index] + before
    prompt = 0 if choice.index or not attempts[-1].begun else estimated_tokens(request.prompt)
    return choice.counted + before + Usage(prompt_tokens=prompt)


def _unread(unread: Callable[[Done], object], offset: int, done: Done) -> None:
    unread(Done(done.index + offset, done.completion))


def _one_by_one(request: Request) -> list[Request]:
    seed = request.params.seed
    return [
        replace(request, n=1, params=replace(request.params, seed=None if seed is None else seed + index))
        for index in range(request.n)
    ]


def _key_from_environment(host: str) -> str | None:
    """Keys of named services go to their own hosts only."""
    return os.environ.get(KEYS_BY_HOST.get(host, ANY_KEY)) or os.environ.get(ANY_KEY) or None


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Retry(f"the response is not valid JSON ({len(body)} bytes)")
    return found


def _code(body: bytes) -> str | None:
    """The code of an error response."""
    try:
        found = json.loads(body)
    except ValueError:
        return error_code(_complaint(body))
    return error_code(found.get("error", found) if isinstance(found, dict) else found)


def _complaint(body: bytes) -> str:
    """What an error response says, shortened."""
    text = body.decode(errors="replace")
    try:
        found = json.loads(text)
        error = found.get("error", found.get("message", found)) if isinstance(found, dict) else found
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass  # then the text itself
    return " ".join(text.split())[:500] or "no explanation"


def _retry_after(text: str | None) -> float | None:
    """Seconds, from a number or a date."""
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass  # a date, then
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
