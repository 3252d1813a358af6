"""Addresses: whole or not at all, in bounded time, with spaces and letters of any script, without passwords."""

from __future__ import annotations

import base64
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma4_mlx.errors import InputError
from gemma4_mlx.processing import downloads
from gemma4_mlx.processing.downloads import decoded_data_url, download, shown_address
from gemma4_mlx.processing.sources import resolve_source

CONTENT = bytes(range(256)) * 400


@contextmanager
def answering(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server that takes connections one by one and leaves what is sent to `answer(connection, request)`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    request = connection.recv(65_536)
                    answer(connection, request)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def whole(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)


def test_a_whole_download_is_its_bytes() -> None:
    with answering(whole) as address:
        assert download(f"{address}/a.png", "a.png") == CONTENT


BREAKING_OFF = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + CONTENT[:3000],
    "nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nabcde",
    "in a chunk's size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1",
}


@pytest.mark.parametrize("place", BREAKING_OFF)
def test_a_download_that_breaks_off_is_an_error_that_says_so(place: str) -> None:
    with (
        answering(lambda connection, request: connection.sendall(BREAKING_OFF[place])) as address,
        pytest.raises(InputError, match=r"a\.png broke off \(.*bytes.*\): try again"),
    ):
        download(f"{address}/a.png", "a.png")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("/a b.png", "/a%20b.png"),
        ("/a%20b.png", "/a%20b.png"),
        ("/größe/字.png?q=ü b&x=%41", "/gr%C3%B6%C3%9Fe/%E5%AD%97.png?q=%C3%BC%20b&x=%41"),
        ("/a.png?u=http://b/c@d#part", "/a.png?u=http://b/c@d"),
        ("", "/"),
    ],
)
def test_addresses_may_have_spaces_and_letters_of_any_script(typed: str, sent: str) -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        asked.append(request)
        whole(connection, request)

    with answering(answer) as address:
        assert download(address + typed, "it") == CONTENT
    assert asked[0].split()[1].decode("ascii") == sent


def test_a_redirect_to_a_letter_outside_ascii_is_followed() -> None:
    asked: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        asked.append(request.split()[1])
        if len(asked) == 1:
            connection.sendall("HTTP/1.1 302 Found\r\nLocation: /ü b\r\nContent-Length: 0\r\n\r\n".encode())
        else:
            whole(connection, request)

    with answering(answer) as address:
        assert download(f"{address}/", "it") == CONTENT
    assert asked[1] == b"/%C3%BC%20b"


@pytest.fixture
def asked_hosts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every host that an address is looked up for; none is found."""
    hosts: list[str] = []

    def refuse(host: str, *rest: object, **more: object) -> None:
        hosts.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return hosts


def test_a_host_of_another_script_is_asked_for_in_ascii(asked_hosts: list[str]) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        download("http://bücher.example/字.png", "it")
    assert asked_hosts == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "address",
    [
        "http://anna:s3cret@host.example/a.png",
        "http://anna:s3cret@host.example:8080/a.png",
        "http://anna:s3c/ret@host.example/a.png",
        "https://anna:s3c#ret@host.example/a.png",
        "http://anna:s3c?ret@host.example/a.png",
        "http://anna:s3@c:ret@host.example/a.png",
        "HTTP://anna:s3cret@[::1]/a.png",
        "http:anna:s3cret@host.example/a.png",
        "http:\\\\anna:s3cret@host.example/a.png",
    ],
)
def test_a_password_is_neither_looked_up_nor_said(address: str, asked_hosts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        resolve_source(address, "picture")
    assert asked_hosts == []
    for secret in ("s3cret", "s3c", "s3@c"):
        assert secret not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_redirect_to_an_address_with_a_password_or_to_another_protocol_is_not_followed() -> None:
    for target in (b"http://anna:s3cret@host.example/", b"ftp://host.example/a", b"file:///etc/passwd"):
        reply = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % target
        with (
            answering(lambda connection, request, reply=reply: connection.sendall(reply)) as address,
            pytest.raises(InputError, match="it ") as caught,
        ):
            download(f"{address}/", "it")
        assert "s3cret" not in str(caught.value)


def test_an_address_without_a_password_is_named_as_it_is() -> None:
    for address in ("https://medium.com/@anna/a.png", "http://[::1]:80/a@b", "a@b.png", "data:,a@b"):
        assert shown_address(address) == address
    assert shown_address("https://anna:x@host/a.png") == "https://…@host/a.png"


@pytest.mark.parametrize(
    "address", ["http://", "http:///a.png", "http://a b/c.png", "http://host:port/a", "http://[::1/a"]
)
def test_what_is_no_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(InputError, match="not an address that can be asked"):
        download(address, "it")


@pytest.mark.parametrize("part", ["header", "body", "chunks"])
def test_a_server_that_dribbles_is_left_in_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "DOWNLOAD_WAIT_SECONDS", 1)
    beginning = {
        "header": b"HTTP/1.1 200 OK\r\nX-A: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
        "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    }[part]

    def dribble(connection: socket.socket, request: bytes) -> None:
        connection.sendall(beginning)
        for _ in range(300):
            connection.sendall(b"1\r\na\r\n" if part == "chunks" else b"a")
            time.sleep(0.05)

    began = time.monotonic()
    with answering(dribble) as address, pytest.raises(InputError, match=r"too slowly|no answer in 1 s"):
        download(f"{address}/", "it")
    assert time.monotonic() - began < 5


SHOWN = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    "address",
    [
        f"data:image/png;base64,{SHOWN}",
        f"data:image/png;base64,{SHOWN.rstrip('=')}",
        f"data:;base64,{SHOWN[:76]}\r\n{SHOWN[76:]}\n",
        f"data:image/png;charset=x;BASE64,{base64.urlsafe_b64encode(CONTENT).decode().rstrip('=')}",
        f"data:image/png;base64,{urllib.parse.quote(SHOWN, safe='')}",
        f"DATA:image/png;base64,  {SHOWN} ",
        f"data:,{urllib.parse.quote_from_bytes(CONTENT)}",
    ],
)
def test_a_data_url_is_taken_as_programs_write_it(address: str) -> None:
    assert resolve_source(address, "picture").content == CONTENT


@given(st.binary(min_size=1, max_size=40), st.booleans(), st.booleans())
def test_every_length_of_base64_is_read(content: bytes, padded: bool, for_urls: bool) -> None:
    text = (base64.urlsafe_b64encode if for_urls else base64.b64encode)(content).decode()
    assert decoded_data_url("data:;base64," + (text if padded else text.rstrip("=")), "it") == content


@pytest.mark.parametrize(
    "address", ["data:image/png;base64", "data:;base64,abcde", "data:;base64,ab!d", "data:;base64,a==b"]
)
def test_a_data_url_that_is_none_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(InputError, match=r"comma|base64|empty"):
        resolve_source(address, "picture")
