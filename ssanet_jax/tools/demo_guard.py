"""ASGI middleware that protects a local server from cross-origin requests and DNS rebinding.

A page from elsewhere can send requests to 127.0.0.1 through its visitor's browser. Browsers name
that page in the header Origin. If its own name is made to point to this machine (DNS rebinding),
the header Host has that name.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
    """ASGI middleware that refuses requests of other origins, for other hosts, or too large.

    Args:
      app: the application.
      host: name of the server, beside its addresses, localhost and this machine's name.
      max_bytes: of a request.
    """

    def __init__(self, app: ASGIApp, host: str, max_bytes: int):
        self._app, self._max_bytes = app, max_bytes
        self._names = {host.lower(), 'localhost', socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if scope['type'] == 'lifespan' else self._refusal(Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope['type'] == 'websocket':
            await send({'type': 'websocket.close', 'code': 1008})
        else:
            status, text = refusal
            await PlainTextResponse(text, status, {'connection': 'close'})(scope, receive, send)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        """The HTTP status and text that refuse a request with these headers, or None."""
        host = headers.get('host', '').lower()
        if not self._is_here(host):
            return 403, 'Unknown host. Open the address that the command printed.'
        origin = headers.get('origin')
        if origin is not None and urlsplit(origin.lower()).netloc != host:
            return 403, 'Requests of other pages are refused.'
        if 'transfer-encoding' in headers:
            return 411, 'The length of the request is missing.'
        length = headers.get('content-length', '0')
        if not length.isdecimal() or int(length) > self._max_bytes:
            return 413, f'Requests have at most {self._max_bytes:,} bytes.'
        return None

    def _is_here(self, host: str) -> bool:
        """Whether a Host header is an address or a name of this server."""
        try:
            name = urlsplit(f'//{host}').hostname or ''
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False
