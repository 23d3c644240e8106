"""A server of the demo's page in a thread, with a network that turns colours around."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from derainzoo.inference.predictor import Predictor
from derainzoo.web.desk import Desk
from derainzoo.web.examples import examples
from derainzoo.web.server import Server


class Inverse(nn.Module):
    """One minus the picture; with a `gate` not before it opens."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        if self.gate and not x.is_meta:
            assert self.gate.wait(30)
        return 1 - x

    def __deepcopy__(self, memo: dict) -> nn.Module:  # memory is counted on a copy, and a gate cannot be copied
        return Inverse()


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise MemoryError if x.shape[-1] < 50 else ZeroDivisionError("of our own making")


class Client:
    """Talks to a server as its page does."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.host = f"127.0.0.1:{server.server_address[1]}"

    def __call__(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None):
        """Status, headers and content of the answer; headers that are None are left out."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=30)
        sent = {"Host": self.host, "X-Derainzoo": "page", **(headers or {})}
        connection.request(method, path, body, {k: v for k, v in sent.items() if v is not None})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.headers["Content-Type"] == "application/json" and content:
            content = json.loads(content)
        return answer.status, answer.headers, content

    def send(self, data: bytes, network: str = "inverse", **headers: str | None):
        """Hand a picture in."""
        status, _, content = self("POST", f"/pictures?network={network}", data, headers)
        return status, content

    def wait(self, ticket: dict) -> dict:
        """Until it is done or has failed."""
        for _ in range(1000):
            _, _, ticket = self("GET", f"/pictures/{ticket['id']}")
            if ticket["state"] in ("done", "failed"):
                return ticket
            threading.Event().wait(0.01)
        raise AssertionError(ticket)


@contextmanager
def serving(net: nn.Module | None = None, places: int = 4, max_bytes: int = 10**6, max_pixels: int = 10**6) -> Iterator[Client]:
    networks = {"inverse": Predictor(net or Inverse(), "cpu", tile=None), "fails": Predictor(Fails(), "cpu", tile=None)}
    facts = {
        "networks": [{"key": key, "label": key} for key in networks],
        "examples": [vars(example) for example in examples().values()],
        "max_bytes": max_bytes,
        "local": True,
        "random": False,
    }
    with torch.inference_mode(), Server(Desk(networks, places, max_pixels, 95), facts, max_bytes) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Client(server)
        finally:
            server.shutdown()
            thread.join()
