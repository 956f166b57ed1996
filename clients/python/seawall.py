"""A client of Seawall, to copy.

    seawall = Seawall("http://127.0.0.1:8080", token=os.environ["SEAWALL_TOKEN"])
    product = seawall.ask("product", {"id": 42})

One `Seawall` for the whole process: it keeps connections open, and may be used by many threads.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Any, Mapping

import httpx


class Problem(Exception):
    """An answer that is none: `code` is stable and to act on, `detail` is for people."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            self.document = response.json()
        except ValueError:
            # Of something in between, such as a balancer.
            self.document = {}
        self.status = response.status_code
        self.code: str = self.document.get("code", "")
        self.detail: str = self.document.get("detail", "")
        # What is wrong with each parameter: {"param": …, "detail": …, "hint": …}.
        self.errors: list[dict[str, str]] = self.document.get("errors", [])
        super().__init__(f"{self.status} {self.code}: {self.detail}")


class Seawall:
    def __init__(self, url: str, token: str | None = None, *, timeout: float = 10.0, keep: int = 1000) -> None:
        """`timeout` is for a whole question, in seconds; `keep` answers are kept, to be told of in a 304."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers)
        self._timeout = timeout
        self._keep = keep
        self._kept: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._lock = Lock()

    def ask(self, query: str, params: Mapping[str, Any] | None = None, *, after: str | None = None) -> Any:
        """The answer of `query`, with every write of the transaction `after`, which is what `seawall.token()` gave in it.

        Raises `Problem`, or `httpx.TransportError` where there is no answer at all.
        """
        request = self._http.build_request("GET", f"/v1/queries/{query}", params=params)
        key = str(request.url)
        with self._lock:
            etag, body = self._kept.get(key, (None, b""))
        if etag:
            request.headers["If-None-Match"] = etag
        if after:
            request.headers["Seawall-After"] = after
        response = self._send(request)
        if response.status_code == httpx.codes.OK:
            body = response.content
            self._remember(key, response.headers["ETag"], body)
        elif response.status_code != httpx.codes.NOT_MODIFIED:
            raise Problem(response)
        # Read anew each time: what a caller does to its answer, another one doesn't see.
        return httpx.Response(200, content=body).json()

    def _send(self, request: httpx.Request) -> httpx.Response:
        """Sends it, and again where the service says when: it is busy, or has lost its database for a moment."""
        deadline = time.monotonic() + self._timeout
        while True:
            left = deadline - time.monotonic()
            request.extensions["timeout"] = httpx.Timeout(max(left, 0.001)).as_dict()
            response = self._http.send(request)
            pause = response.headers.get("Retry-After", "")
            if response.status_code not in (429, 503) or not pause.isdigit():
                return response
            if float(pause) >= deadline - time.monotonic():
                return response
            time.sleep(float(pause))

    def _remember(self, key: str, etag: str, body: bytes) -> None:
        with self._lock:
            self._kept[key] = (etag, body)
            self._kept.move_to_end(key)
            if len(self._kept) > self._keep:
                self._kept.popitem(last=False)
