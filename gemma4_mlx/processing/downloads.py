"""The bytes behind an address: `http:`, `https:` and `data:`, whole or not at all, and in bounded time.

What is in them is not this file's business.
"""

from __future__ import annotations

import base64
import binascii
import re
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from contextlib import suppress
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Any

from ..errors import InputError, reason
from .limits import DOWNLOAD_BYTES, DOWNLOAD_BYTES_PER_SECOND, DOWNLOAD_SECONDS, DOWNLOAD_WAIT_SECONDS

_CHUNK = 1 << 16
# What may stand in a path or a query as it is: RFC 3986, and the percent sign of what has been quoted before.
_KEPT = "%/:?@!$&'()*+,;=~-._[]"


def download(url: str, name: str) -> bytes:
    """What an `http:` or `https:` address gives.

    Args:
        url: as people write it: spaces and letters outside ASCII may be in it.
        name: what errors call it.

    Raises:
        InputError: it cannot be fetched, breaks off, is too large, or takes too long.
    """
    address = _wire_form(url, name)
    began = time.monotonic()
    sockets = _Sockets()
    too_slow = threading.Timer(DOWNLOAD_WAIT_SECONDS, sockets.shut)
    too_slow.daemon = True
    too_slow.start()
    try:
        # Some hosts refuse the default agent of urllib.
        request = urllib.request.Request(address, headers={"User-Agent": "gemma4-mlx"})
        with _opener(sockets, name).open(request, timeout=DOWNLOAD_WAIT_SECONDS) as response:
            too_slow.cancel()
            if sockets.were_shut:  # which looks like the end of a header
                raise TimeoutError
            return _read(response, name, began)
    except (OSError, ValueError, HTTPException) as error:
        why = f"no answer in {DOWNLOAD_WAIT_SECONDS} s" if sockets.were_shut else reason(error)
        raise InputError(f"{name} cannot be fetched ({why}): download it and give the path") from error
    finally:
        too_slow.cancel()


def decoded_data_url(url: str, name: str) -> bytes:
    """The bytes in a `data:` address, base64 or percent-encoded.

    Base64 is taken as programs write it: without padding, with line breaks, in the alphabet for URLs.

    Raises:
        InputError: there is no comma in it, or what follows is not base64.
    """
    head, comma, body = url.partition(",")
    if not comma:
        raise InputError(f"{name} has no comma before its content: give data:image/png;base64,…")
    content = urllib.parse.unquote_to_bytes(body)
    if not re.search(r";\s*base64\s*$", head, re.IGNORECASE):
        return content
    letters = b"".join(content.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(letters + b"=" * (-len(letters) % 4), validate=True)
    except binascii.Error as error:
        raise InputError(f"{name} is not base64 ({reason(error)}): encode the file's bytes again") from error


def shown_address(source: str) -> str:
    """An address without the password in it; any other text as it is."""
    if not re.match(r"https?:", source, re.IGNORECASE):
        return source
    scheme, _, rest = source.partition(":")
    authority = re.match(r"[/\\]*([^/?#\\]*)", rest)
    assert authority is not None
    host = authority.group(1)
    if "@" in host:
        return f"{scheme}://…@{host.rpartition('@')[2]}{rest[authority.end() :]}"
    if _is_port(host) or "@" not in rest:
        return source
    return f"{scheme}://…@{rest.rpartition('@')[2]}"  # the "port" begins a password with a slash in it


def _is_port(host: str) -> bool:
    """What follows the host's colon, if anything does, is a number."""
    return re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(:\d*)?", host) is not None


def _wire_form(url: str, name: str) -> str:
    """An address as it goes over the line: quoted, with the host's name in ASCII.

    Raises:
        InputError: there is no host in it that can be asked, or a password, which does not belong into an address.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        if parts.username is not None:
            raise InputError(f"{name} has a user name in its address: download it and give the path")
        host = parts.hostname or ""
        port = "" if parts.port is None else f":{parts.port}"
        host = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        # What the error says may hold a part of a password.
        raise InputError(f"{name} is not an address that can be asked: check it, or give a path") from error
    if not re.fullmatch(r"[\w.~-]+|\[[0-9A-Fa-f:.]+(%25[\w.~-]+)?\]", host):
        raise InputError(f"{name} is not an address that can be asked: check it, or give a path")
    path, query = urllib.parse.quote(parts.path, safe=_KEPT), urllib.parse.quote(parts.query, safe=_KEPT)
    return urllib.parse.urlunsplit((parts.scheme, host + port, path, query, ""))


def _read(response: Any, name: str, began: float) -> bytes:
    """The body, which must be as long as its header says."""
    pieces: list[bytes] = []
    size = 0
    broke_off = "{} broke off ({} came): try again, or download it and give the path"

    def next_piece() -> bytes:
        try:
            piece: bytes = response.read1(_CHUNK)
        except IncompleteRead as error:  # between two chunks
            raise InputError(broke_off.format(name, f"{size} bytes")) from error
        return piece

    while piece := next_piece():
        pieces.append(piece)
        size += len(piece)
        seconds = time.monotonic() - began
        if size > DOWNLOAD_BYTES:
            raise InputError(f"{name} is larger than {DOWNLOAD_BYTES >> 20} MiB: download it and give the path")
        is_slow = seconds > DOWNLOAD_WAIT_SECONDS and size < DOWNLOAD_BYTES_PER_SECOND * seconds
        if is_slow or seconds > DOWNLOAD_SECONDS:
            raise InputError(
                f"{name} comes too slowly ({size} bytes in {seconds:.0f} s): download it and give the path"
            )
    stated = response.headers.get("Content-Length", "")
    if not response.chunked and stated.isdecimal() and size < int(stated):
        raise InputError(broke_off.format(name, f"{size} of {stated} bytes"))
    return b"".join(pieces)


class _Sockets:
    """The connections of one download, which can be shut from another thread."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self.were_shut = False

    def add(self, connection: HTTPConnection) -> None:
        self._open.append(connection.sock)
        if self.were_shut:
            self.shut()

    def shut(self) -> None:
        self.were_shut = True
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _opener(sockets: _Sockets, name: str) -> urllib.request.OpenerDirector:
    """Opens `http:` and `https:` alone, through a proxy if there is one, and follows redirects to the same."""

    class Http(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self)

    class Https(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.add(self)

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, request: Any) -> Any:
            return self.do_open(Http, request)

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: Any) -> Any:
            return self.do_open(Https, request, context=_certificates())

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, request: Any, body: Any, code: int, message: str, headers: Any, url: str) -> Any:
            return super().redirect_request(request, body, code, message, headers, _wire_form(url, name))

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        HttpHandler(),
        HttpsHandler(),
        Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


@cache
def _certificates() -> ssl.SSLContext:
    """This system's and certifi's: on a Mac, Python from python.org has none of its own."""
    import certifi

    known = ssl.create_default_context()
    known.load_verify_locations(certifi.where())
    return known
