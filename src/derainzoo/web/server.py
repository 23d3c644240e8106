"""The page's server: http.server, and what a browser must not be able to do to it.

A local address is open to every web page that the user's browser shows. So requests are answered only under this server's own
names (a foreign name that resolves to this machine is a trick), and whatever costs work must carry a header that pages of other
origins cannot send. Uploads are bounded in size, time and number before they are read, and nothing that a client sends is ever
used as a path.
"""

import ipaddress
import json
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, urlsplit

from derainzoo.errors import DerainzooError
from derainzoo.web.desk import Desk
from derainzoo.web.examples import examples, rainy_png

log = logging.getLogger(__name__)

TOKEN = "X-Derainzoo"
"""The header that only scripts of our own page can send: others would have to ask first, and are not answered."""

CONNECTIONS = 64
SILENCE = 30
"""Seconds after which a connection on which nothing moves is closed."""

PATIENCE = 600
"""Seconds that an upload may take."""


class Refusal(Exception):
    """A request that is answered with a status other than 200 and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Server(ThreadingHTTPServer):
    """Listens from the moment it is made; `serve_forever` answers.

    Args:
        desk: where pictures are handed in.
        facts: what the page is told about this server (see `GET /about`).
        max_bytes: of an upload.
        host, port: to listen at; port 0 is any free one.
    """

    daemon_threads = True

    def __init__(self, desk: Desk, facts: dict[str, Any], max_bytes: int, host: str = "127.0.0.1", port: int = 0) -> None:
        self.desk, self.facts, self.max_bytes = desk, facts, max_bytes
        self.names = {"localhost", host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}
        self._connections = threading.BoundedSemaphore(CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise DerainzooError(
                f"cannot listen at {host}:{port}: {getattr(error, 'strerror', None) or error}; another port=... may be free "
                "(port=0 takes any), host=0.0.0.0 is every address of this machine"
            ) from None

    @property
    def address(self) -> str:
        """What to open in a browser on this machine."""
        host, port = self.server_address[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(host), str(host))
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def server_bind(self) -> None:
        """Without the parent's look-up of a host name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = map(str, self.server_address[:2])  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, up to a number; beyond it they are closed."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Not on the terminal: what a client did to its own connection is no news."""
        log.debug("connection of %s", client_address, exc_info=True)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server. Addresses do: a trick with names needs a name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            ipaddress.ip_address(name)
        except ValueError:
            return host.rsplit(":", 1)[0].lower() in self.names
        return True


@cache
def page() -> str:
    """The page, with `NONCE` where each answer puts a number used once."""
    return files("derainzoo.web").joinpath("page.html").read_text(encoding="utf-8")


class Handler(BaseHTTPRequestHandler):
    """One request on a connection of its own.

    GET /                       the page
    GET /about                  networks, limits, example pictures
    GET /examples/NAME.png      one of them
    POST /pictures?network=KEY  body: a picture file; answered with a ticket
    GET /pictures/ID            how far it is
    GET /pictures/ID/result     the restored file
    DELETE /pictures/ID         forget it
    """

    server: Server
    server_version, sys_version = "derainzoo", ""
    timeout = SILENCE

    def do_GET(self) -> None:
        """See the class."""
        with self._refusing():
            match self._route():
                case [""]:
                    self._send_page()
                case ["about"]:
                    self._send_json(200, self.server.facts)
                case ["examples", name] if name.removesuffix(".png") in examples():
                    self._send(200, "image/png", rainy_png(name.removesuffix(".png")))
                case ["pictures", ticket_id]:
                    self._send_ticket(ticket_id)
                case ["pictures", ticket_id, "result"]:
                    self._send_result(ticket_id)
                case _:
                    raise Refusal(404, "there is nothing under this address")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """See the class."""
        with self._refusing():
            if self._route() != ["pictures"]:
                raise Refusal(404, "there is nothing under this address")
            self._check_sender()
            network = parse_qs(urlsplit(self.path).query).get("network", [""])[0]
            if network not in self.server.desk.networks:
                raise Refusal(400, "there is no such network here any more; load the page again")
            size = self._announced()
            if not self.server.desk.take_place():
                raise Refusal(503, "Others were faster: as many pictures as may wait are waiting. Try again in a moment.")
            try:
                data = self._receive(size)
            except BaseException:
                self.server.desk.leave_place()
                raise
            ticket = self.server.desk.hand_in(network, data)
            self._send_json(202, self.server.desk.describe(ticket))

    def do_DELETE(self) -> None:
        """See the class."""
        with self._refusing():
            match self._route():
                case ["pictures", ticket_id]:
                    self._check_sender()
                    self.server.desk.drop(ticket_id)
                    self._send_json(200, {})
                case _:
                    raise Refusal(404, "there is nothing under this address")

    # --- who asks for what --------------------------------------------------------------------------------------------------

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        self.unread = 0
        try:
            yield
        except Refusal as refusal:
            self._send_json(refusal.status, {"error": str(refusal)})
            self._discard()

    def _route(self) -> list[str]:
        """The path in its parts, as names to compare with, and the check that comes before everything."""
        if not self.server.knows(self.headers.get("Host", "")):
            raise Refusal(403, "this server does not go by that name; open it by its address, as the terminal prints it")
        return urlsplit(self.path).path.split("/")[1:]

    def _check_sender(self) -> None:
        origin = self.headers.get("Origin")
        if not self.headers.get(TOKEN) or (origin and urlsplit(origin).netloc != self.headers["Host"]):
            raise Refusal(403, "only this server's own page may do that")

    # --- what comes in ------------------------------------------------------------------------------------------------------

    def _announced(self) -> int:
        """The size of the body, which must be stated and allowed."""
        text = self.headers.get("Content-Length", "")
        if not text.isascii() or not text.isdigit() or len(text) > 15:
            raise Refusal(411, "a picture must come with its size")
        self.unread = size = int(text)
        if size > self.server.max_bytes:
            raise Refusal(413, f"This file has {size / 1e6:.0f} MB; up to {self.server.max_bytes / 1e6:.0f} MB are taken here.")
        return size

    def _receive(self, size: int) -> bytes:
        pieces, end = [], monotonic() + PATIENCE
        while self.unread:
            piece = self.rfile.read1(min(self.unread, 2**20))  # type: ignore[attr-defined]
            if not piece:
                raise ConnectionAbortedError(f"{self.unread} of {size} bytes are missing")
            if monotonic() > end:
                raise Refusal(408, "the upload took too long")
            pieces.append(piece)
            self.unread -= len(piece)
        return b"".join(pieces)

    def _discard(self) -> None:
        """Read what is left of a refused upload: a connection that is closed on data takes the answer with it."""
        self.wfile.flush()
        left, end = min(self.unread, 2 * self.server.max_bytes), monotonic() + SILENCE
        while left > 0 and monotonic() < end and (piece := self.rfile.read1(min(left, 2**20))):  # type: ignore[attr-defined]
            left -= len(piece)

    # --- what goes out ------------------------------------------------------------------------------------------------------

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' blob: data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        body = page().replace("NONCE", nonce).encode()
        self._send(200, "text/html; charset=utf-8", body, {"Content-Security-Policy": policy})

    def _send_ticket(self, ticket_id: str) -> None:
        ticket = self.server.desk.find(ticket_id)
        if ticket is None:
            raise Refusal(404, "this picture is not here any more")
        self._send_json(200, self.server.desk.describe(ticket))

    def _send_result(self, ticket_id: str) -> None:
        ticket = self.server.desk.find(ticket_id)
        if ticket is None or ticket.state != "done":
            raise Refusal(404, "there is no result under this address")
        self._send(200, ticket.media_type, ticket.result, {"Content-Disposition": "attachment"})

    def _send_json(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: int, media_type: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        common = {
            "Content-Type": media_type,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**common, **(headers or {})}.items():
            self.send_header(name, value)
        if status == 503:
            self.send_header("Retry-After", "10")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Only for those who debug."""
        log.debug(format, *arguments)
