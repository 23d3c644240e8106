"""Where pictures wait for the network: a bounded queue, one worker, results that are kept until they are fetched."""

import logging
import queue
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

from derainzoo.errors import DerainzooError
from derainzoo.inference.photo import WITHOUT_ALPHA, encode, is_transparent, read_photo
from derainzoo.inference.predictor import Predictor

log = logging.getLogger(__name__)

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp", "BMP": "image/bmp"}


@dataclass
class Ticket:
    """One picture on its way, and what became of it."""

    network: str
    data: bytes
    """The picture's file as it came; let go when the work begins."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    """Not to be guessed: whoever knows it gets the result."""
    state: Literal["waiting", "working", "done", "failed"] = "waiting"
    error: str = ""
    result: bytes = b""
    media_type: str = ""
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    """Width and height, as they lie in the file; known once it is decoded."""
    began: float = 0.0
    seconds: float = 0.0
    """That decoding, network and encoding took."""
    expected: float = 0.0
    """Seconds that it should take, judging by earlier pictures; 0: nobody knows."""


class Desk:
    """Takes pictures in, has them restored one after the other, hands results out.

    Args:
        networks: by the name that the page shows.
        places: pictures that may wait or be worked on at a time, and results that are kept.
        max_pixels: larger pictures are refused before they are decoded.
        quality: of JPEG and lossy WebP.
    """

    def __init__(self, networks: Mapping[str, Predictor], places: int, max_pixels: int, quality: int) -> None:
        self.networks, self.places, self.max_pixels, self.quality = networks, places, max_pixels, quality
        self._free = threading.BoundedSemaphore(places)
        self._tickets: dict[str, Ticket] = {}  # in the order in which they came
        self._lock = threading.Lock()
        self._waiting: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        self._pace: dict[str, float] = {}  # seconds a pixel, of each network's last picture
        threading.Thread(target=self._work, name="restoring", daemon=True).start()

    def take_place(self) -> bool:
        """Before a picture is even received; false when the queue is full."""
        return self._free.acquire(blocking=False)

    def leave_place(self) -> None:
        """Undoes `take_place` for a picture that was not handed in."""
        self._free.release()

    def hand_in(self, network: str, data: bytes) -> Ticket:
        """Queue a picture, for which there must be a place; the place is free again when it is done."""
        ticket = Ticket(network, data)
        with self._lock:
            self._tickets[ticket.id] = ticket
        self._waiting.put(ticket)
        return ticket

    def find(self, ticket_id: str) -> Ticket | None:
        """The ticket, unless it was dropped."""
        with self._lock:
            return self._tickets.get(ticket_id)

    def drop(self, ticket_id: str) -> None:
        """Forget a picture: its result was fetched, or nobody waits for it any more."""
        with self._lock:
            self._tickets.pop(ticket_id, None)

    def ahead_of(self, ticket: Ticket) -> int:
        """How many come before it, the one in work included."""
        with self._lock:
            tickets = list(self._tickets.values())
        return sum(t.state in ("waiting", "working") for t in tickets[: tickets.index(ticket)]) if ticket in tickets else 0

    def _work(self) -> None:
        while True:
            ticket = self._waiting.get()
            if self.find(ticket.id):
                self._do(ticket)
            self._free.release()
            self._forget_the_oldest()

    def _do(self, ticket: Ticket) -> None:
        ticket.began, ticket.state = monotonic(), "working"
        try:
            self._restore(ticket)
        except DerainzooError as error:
            ticket.error = str(error)
        except MemoryError:
            ticket.error = "the picture does not fit into this computer's memory"
        except Exception:  # whatever it is, the next picture must find the worker alive
            log.exception("a picture could not be restored")
            ticket.error = "something went wrong that should not; the terminal in which derainzoo runs says what"
        ticket.data = b""
        ticket.seconds = monotonic() - ticket.began
        if not ticket.error:
            self._pace[ticket.network] = ticket.seconds / (ticket.size[0] * ticket.size[1])
        ticket.state = "failed" if ticket.error else "done"

    def _restore(self, ticket: Ticket) -> None:
        photo = read_photo(ticket.data, max_pixels=self.max_pixels)
        height, width = photo.pixels.shape[:2]
        ticket.size = width, height
        ticket.expected = self._pace.get(ticket.network, 0.0) * width * height
        dry = photo.with_upright(self.networks[ticket.network](photo.upright))
        kind = "PNG" if photo.format in WITHOUT_ALPHA and is_transparent(dry) else photo.format
        ticket.result, ticket.notes = encode(dry, kind, self.quality)
        if kind != photo.format:
            ticket.notes += (f"it is a {kind} now: {photo.format} is written without transparency",)
        ticket.media_type = MEDIA_TYPES[kind]

    def _forget_the_oldest(self) -> None:
        with self._lock:
            finished = [t.id for t in self._tickets.values() if t.state in ("done", "failed")]
            for ticket_id in finished[: -self.places]:
                del self._tickets[ticket_id]

    def describe(self, ticket: Ticket) -> dict[str, Any]:
        """What the page is told while it waits."""
        running = monotonic() - ticket.began if ticket.state == "working" else ticket.seconds
        return {
            "id": ticket.id,
            "state": ticket.state,
            "ahead": self.ahead_of(ticket),
            "seconds": round(running, 2),
            "expected": round(ticket.expected, 2),
            "size": ticket.size,
            "notes": ticket.notes,
            "error": ticket.error,
        }
