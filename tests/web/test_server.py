"""The page's server, asked as a browser asks it and as nobody should."""

import io
import socket
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from derainzoo.errors import DerainzooError
from derainzoo.images import read_stored
from derainzoo.web import server as module
from derainzoo.web.server import Server
from pictures import picture
from web_server import Inverse, serving


@pytest.fixture
def ask():
    with serving() as client:
        yield client


def encoded(kind="PNG", height=24, width=36, **options):
    file = io.BytesIO()
    Image.fromarray(picture(1, height, width)).save(file, kind, **options)
    return file.getvalue()


# --- what it is for ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("BMP", "image/bmp"), ("WebP", "image/webp")])
def test_a_picture_comes_back_restored(ask, kind, media_type):
    data = encoded(kind, **({"lossless": True} if kind == "WebP" else {}))
    status, ticket = ask.send(data)
    assert status == 202
    ticket = ask.wait(ticket)
    assert (ticket["state"], ticket["size"], ticket["notes"]) == ("done", [36, 24], [])
    status, headers, result = ask("GET", f"/pictures/{ticket['id']}/result")
    assert (status, headers["Content-Type"]) == (200, media_type)
    assert np.array_equal(read_stored(result).pixels, 255 - read_stored(data).pixels)


def test_a_transparent_bmp_comes_back_as_png(ask):
    data = cv2.imencode(".bmp", np.dstack((picture(1, 24, 36), picture(2, 24, 36)[..., :1])))[1].tobytes()
    ticket = ask.wait(ask.send(data)[1])
    assert ticket["notes"] == ["it is a PNG now: BMP is written without transparency"]
    _, headers, result = ask("GET", f"/pictures/{ticket['id']}/result")
    assert headers["Content-Type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(result)))[..., 3], picture(2, 24, 36)[..., 0])


def test_orientation_and_metadata_stay(ask):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a wet street"
    ticket = ask.wait(ask.send(encoded("JPEG", exif=exif, quality=90))[1])
    result = Image.open(io.BytesIO(ask("GET", f"/pictures/{ticket['id']}/result")[2]))
    assert result.format == "JPEG"
    assert (result.size, result.getexif()[0x0112], result.getexif()[0x010E]) == ((36, 24), 6, "a wet street")


def test_the_page_needs_nothing_from_elsewhere(ask):
    status, headers, body = ask("GET", "/")
    policy = headers["Content-Security-Policy"]
    nonce = policy.split("'nonce-")[1].split("'")[0]
    text = body.decode()
    assert status == 200
    assert text.count(f'nonce="{nonce}"') == 2
    assert "default-src 'none'" in policy
    assert not [line for line in text.splitlines() if "http" in line.replace("http://www.w3.org/2000/svg", "")]
    assert nonce not in ask("GET", "/")[2].decode()  # another one each time


def test_the_page_is_told_what_there_is(ask):
    about = ask("GET", "/about")[2]
    assert [n["key"] for n in about["networks"]] == ["inverse", "fails"]
    for example in about["examples"]:
        status, headers, data = ask("GET", f"/examples/{example['name']}.png")
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert read_stored(data).pixels.shape == (320, 480, 3)
        assert example["author"]
        assert data == ask("GET", f"/examples/{example['name']}.png")[2]


def test_head_is_get_without_content(ask):
    status, headers, body = ask("HEAD", "/about")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 100


def test_what_was_fetched_can_be_forgotten(ask):
    ticket = ask.wait(ask.send(encoded())[1])
    assert ask("DELETE", f"/pictures/{ticket['id']}")[0] == 200
    for path in ("", "/result"):
        status, _, content = ask("GET", f"/pictures/{ticket['id']}{path}")
        assert status == 404
        assert "error" in content


# --- what can be wrong with a picture ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the picture: expected a PNG, JPEG, WebP or BMP picture, but it is empty"),
        (b"<svg onload=alert(1)>", "it is a web page or XML"),
        (b"GIF89a" + bytes(30), "it is a GIF"),
        (encoded()[:-40], "the picture: damaged PNG picture"),
        (encoded("WebP", 1200, 1000), "the picture: 1000 x 1200 is 1 megapixels, more than the limit of 1"),
    ],
)
def test_broken_pictures_are_explained(ask, data, message):
    ticket = ask.wait(ask.send(data)[1])
    assert ticket["state"] == "failed"
    assert message in ticket["error"]
    assert ask("GET", f"/pictures/{ticket['id']}/result")[0] == 404
    assert ask.wait(ask.send(encoded())[1])["state"] == "done"  # and the next one is not harmed


def test_the_name_of_a_type_does_not_count(ask):
    assert ask.wait(ask.send(encoded("JPEG"), **{"Content-Type": "text/html"})[1])["state"] == "done"


@pytest.mark.parametrize(("width", "message"), [(40, "does not fit into this computer's memory"), (60, "that should not")])
def test_a_failing_network_stops_nothing(ask, caplog, width, message):
    ticket = ask.wait(ask.send(encoded(width=width), "fails")[1])
    assert message in ticket["error"]
    assert ("of our own making" in caplog.text) == (width == 60)
    assert ask.wait(ask.send(encoded())[1])["state"] == "done"


# --- how much at a time -----------------------------------------------------------------------------------------------------


def test_a_file_that_is_too_large_is_refused_unread(ask):
    status, content = ask.send(bytes(1_500_000))
    assert (status, content["error"]) == (413, "This file has 2 MB; up to 1 MB are taken here.")


def test_the_queue_is_bounded():
    gate = threading.Event()
    with serving(Inverse(gate), places=2) as ask:
        first, second = (ask.send(encoded())[1] for _ in range(2))
        status, headers, content = ask("POST", "/pictures?network=inverse", encoded())
        assert (status, headers["Retry-After"]) == (503, "10")
        assert "Try again in a moment" in content["error"]
        assert ask("GET", f"/pictures/{second['id']}")[2]["ahead"] == 1
        gate.set()
        assert {ask.wait(t)["state"] for t in (first, second)} == {"done"}
        for _ in range(5):  # more than there are places: each is given back
            assert ask.wait(ask.send(encoded())[1])["state"] == "done"


def test_whoever_leaves_the_queue_costs_nothing():
    gate = threading.Event()
    with serving(Inverse(gate), places=3) as ask:
        first, second, third = (ask.send(encoded())[1] for _ in range(3))
        assert ask("DELETE", f"/pictures/{second['id']}")[0] == 200
        assert ask("GET", f"/pictures/{third['id']}")[2]["ahead"] == 1
        gate.set()
        assert ask.wait(first)["state"] == ask.wait(third)["state"] == "done"
        assert ask.server.desk._pace.keys() == {"inverse"}
        assert ask("GET", f"/pictures/{second['id']}")[0] == 404


def test_results_that_nobody_fetches_go(ask):
    tickets = [ask.wait(ask.send(encoded())[1]) for _ in range(6)]
    there = [ask("GET", f"/pictures/{t['id']}")[0] == 200 for t in tickets]
    assert there[0] is False
    assert there[-1] is True
    assert sum(there) <= 5  # four places; the last one may not be counted yet


def begun_upload(ask):
    """A connection on which a part of a picture has come."""
    connection = socket.create_connection(("127.0.0.1", ask.server.server_address[1]), timeout=10)
    head = f"POST /pictures?network=inverse HTTP/1.1\r\nHost: {ask.host}\r\nX-Derainzoo: page\r\n"
    connection.sendall(f"{head}Content-Length: 500\r\n\r\n".encode() + b"only a part")
    return connection


def test_an_upload_that_breaks_off_gives_its_place_back():
    with serving(places=1) as ask:
        for _ in range(3):
            with begun_upload(ask):
                pass
        for _ in range(200):
            status, ticket = ask.send(encoded())
            if status == 202:
                break
            time.sleep(0.01)
        assert ask.wait(ticket)["state"] == "done"


@pytest.mark.parametrize("patience", ["SILENCE", "PATIENCE"])
def test_slow_uploads_end(monkeypatch, patience):
    monkeypatch.setattr(module, patience, 0)
    monkeypatch.setattr(module.Handler, "timeout", 0.2 if patience == "SILENCE" else 5)
    with serving(places=1) as ask:
        head = (
            f"POST /pictures?network=inverse HTTP/1.1\r\nHost: {ask.host}\r\nX-Derainzoo: page\r\nContent-Length: 500\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", ask.server.server_address[1]), timeout=10) as connection:
            connection.sendall(head.encode() + b"only a part")
            answer = connection.recv(10_000)
        assert (b" 408 " in answer) if patience == "PATIENCE" else answer == b""
        assert ask.server.desk.take_place()  # the only one


def test_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS", 3)
    with serving() as ask:
        address = ("127.0.0.1", ask.server.server_address[1])
        idle = [socket.create_connection(address) for _ in range(3)]
        with socket.create_connection(address, timeout=10) as one_more:
            assert one_more.recv(100) == b""  # closed
        for connection in idle:
            connection.close()
        for _ in range(200):
            try:
                assert ask("GET", "/about")[0] == 200
                break
            except OSError:
                time.sleep(0.01)
        else:
            raise AssertionError("the connections were not given back")


# --- who may ask ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1"]
)
def test_foreign_names_are_refused(ask, host):
    """A page of another origin whose name was pointed at this machine."""
    for method, path in (("GET", "/"), ("GET", "/about"), ("POST", "/pictures?network=inverse")):
        status, _, content = ask(method, path, headers={"Host": host})
        assert status == 403
        assert "does not go by that name" in content["error"]


@pytest.mark.parametrize("host", ["localhost:{port}", "LOCALHOST:{port}", "127.0.0.1:{port}", "[::1]:{port}", "192.168.1.7"])
def test_its_own_names_are_known(ask, host):
    assert ask("GET", "/about", headers={"Host": host.format(port=ask.server.server_address[1])})[0] == 200


def test_pages_of_other_origins_cannot_hand_in(ask):
    assert ask.send(encoded(), **{"X-Derainzoo": None})[0] == 403
    assert ask.send(encoded(), Origin="http://evil.example")[0] == 403
    assert ask.send(encoded(), Origin="null")[0] == 403
    assert ask.send(encoded(), Origin=f"http://{ask.host}")[0] == 202
    assert ask("OPTIONS", "/pictures")[0] == 501  # their browser asks first, and hears no
    ticket = ask.send(encoded())[1]
    assert ask("DELETE", f"/pictures/{ticket['id']}", headers={"X-Derainzoo": None})[0] == 403
    assert ask.wait(ticket)["state"] == "done"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/examples/../../../../../../etc/passwd",
        "/examples/..%2f..%2fetc%2fpasswd",
        "/examples/%2fetc%2fpasswd.png",
        "/examples//etc/passwd",
        "/examples/brook-0.png",
        "/page.html",
        "/pictures/../../about",
    ],
)
def test_addresses_are_never_paths(ask, path):
    for method in ("GET", "DELETE", "POST"):
        status, _, content = ask(method, path)
        assert status == 404
        assert b"root:" not in str(content).encode()


@pytest.mark.parametrize(("length", "status"), [(None, 411), ("many", 411), ("-5", 411), ("9" * 20, 411), ("٣", 411)])
def test_sizes_must_be_stated(ask, length, status):
    head = f"POST /pictures?network=inverse HTTP/1.1\r\nHost: {ask.host}\r\nX-Derainzoo: page\r\n"
    head += f"Content-Length: {length}\r\n\r\n" if length else "\r\n"
    with socket.create_connection(("127.0.0.1", ask.server.server_address[1]), timeout=10) as connection:
        connection.sendall(head.encode())
        assert f" {status} ".encode() in connection.recv(10_000)


def test_an_unknown_network_is_refused(ask):
    for network in ("", "elf", "../../weights.ckpt"):
        status, content = ask.send(encoded(), network)
        assert status == 400
        assert "no such network" in content["error"]


def test_nonsense_is_answered_or_closed(ask):
    for request in (b"\x00\xff" * 50, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000):
        with socket.create_connection(("127.0.0.1", ask.server.server_address[1]), timeout=10) as connection:
            connection.sendall(request + b"\r\n\r\n")
            connection.recv(10_000)
    assert ask("GET", "/about")[0] == 200


# --- where it listens -------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said(ask):
    with pytest.raises(DerainzooError, match="another port=... may be free"):
        Server(ask.server.desk, {}, 10**6, port=ask.server.server_address[1])
    for host, port in (("no.such.name.invalid", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(DerainzooError, match=f"cannot listen at {host}:{port}"):
            Server(ask.server.desk, {}, 10**6, host, port)


def test_the_address_is_one_to_open(ask):
    with Server(ask.server.desk, {}, 10**6, "0.0.0.0") as everywhere:
        assert everywhere.address == f"http://127.0.0.1:{everywhere.server_address[1]}/"
    assert ask.server.address == f"http://{ask.host}/"
