"""`gemma4-mlx serve`: the command from its first line to its last."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemma4_mlx.byte_sizes import physical_memory
from gemma4_mlx.errors import Gemma4Error

from ..exit_codes import leave_at_once
from ..models.model_choice import fetch_model
from ..terminal import note, shows_lines
from .guard import LOOPBACK

if TYPE_CHECKING:
    from .engine import Engine

_SHARE_OF_MEMORY = 8
_LEAST_KEY = 8


@dataclass(frozen=True)
class ServeOptions:
    """What the command line says.

    Attributes:
        host, port: where to listen.
        key, key_file: what clients must know.
        context: most tokens of a prompt and its answer.
        parallel: answers written at once.
        strict_model: requests for another model are refused.
    """

    host: str
    port: int
    key: str | None
    key_file: Path | None
    context: int | None
    parallel: int
    strict_model: bool


def serve(options: ServeOptions, model_name: str | None) -> None:
    """Answer requests until SIGTERM or Ctrl-C; what runs then is finished.

    Raises:
        Gemma4Error: the port is taken, a key is missing, or the model cannot be loaded.
    """
    key = _key(options)
    if options.host not in LOOPBACK and key is None:
        raise Gemma4Error(
            f"{options.host} can be reached by other machines, and anybody there could use the model: "
            "give --api-key-file FILE as well, or leave --host out"
        )
    with _listening(options.host, options.port) as listening:
        name, folder = fetch_model(model_name)
        from .engine import Engine

        engine = Engine(options.parallel, 8 * options.parallel, options.context, physical_memory() // _SHARE_OF_MEMORY)

        def load() -> Any:
            import gemma4_mlx as g4

            return g4.load(folder)

        engine.load(load)
        from .service import make_service

        is_watched = shows_lines(sys.stderr)
        log = _say_nothing if is_watched else note
        app = make_service(engine, name, key, options.host not in LOOPBACK, options.strict_model, log)
        asyncio.run(_run(app, listening, _greeting(_address(listening), name, key is not None), engine, is_watched))
        if engine.in_work:
            leave_at_once(0)


async def _run(app: Any, listening: socket.socket, greeting: list[str], engine: Engine, is_watched: bool) -> None:
    import uvicorn

    from .status import show_status

    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="off",
        server_header=False,
        ws_max_size=2**20,
        h11_max_incomplete_event_size=2**16,
    )

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # see below: what uvicorn catches it raises again at the end, and the exit code would be another

    server = Server(config)
    loop = asyncio.get_running_loop()

    def stop(code: int) -> None:
        if server.should_exit:
            leave_at_once(code)
        server.should_exit = True
        note("finishing what runs; again to stop at once")

    loop.add_signal_handler(signal.SIGTERM, stop, 128 + signal.SIGTERM)
    loop.add_signal_handler(signal.SIGINT, stop, 130)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    showing: asyncio.Task[None] | None = None
    if not serving.done():
        note(*greeting)
        showing = asyncio.create_task(show_status(engine)) if is_watched else None
    await serving
    if showing is not None:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


def _greeting(address: str, name: str, has_key: bool) -> list[str]:
    key = " -H 'Authorization: Bearer KEY'" if has_key else ""
    message = """{"messages": [{"role": "user", "content": "Hello!"}]}"""
    return [
        f"{name} is at {address}/v1 (Ctrl-C stops it). Try:",
        f"  curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{message}'",
    ]


def _say_nothing(_: str) -> None:
    """In place of the log, where a line is drawn."""


def _key(options: ServeOptions) -> str | None:
    key = options.key
    if options.key_file is not None:
        if key is not None:
            raise Gemma4Error("give --api-key or --api-key-file, not both")
        try:
            key = options.key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or "it is no text"
            raise Gemma4Error(f"{options.key_file} cannot be read ({said}): check --api-key-file") from error
    if key is not None and (len(key) < _LEAST_KEY or not key.isascii() or not key.isprintable() or " " in key):
        raise Gemma4Error(f"the API key must be {_LEAST_KEY} or more letters, digits or signs, without spaces")
    return key


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound before anything that takes long. Raises Gemma4Error."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise Gemma4Error(f"{host} is no address of this machine: check --host") from error
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(128)  # here a port that is taken is found out on Linux
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                advice = f"stop what listens there, or choose another with --port {port + 1 if port < 65535 else 8643}"
                raise Gemma4Error(f"port {port} is taken: {advice}") from error
            if error.errno == errno.EACCES:
                raise Gemma4Error(f"port {port} is for the system: choose one above 1023 with --port") from error
            raise Gemma4Error(f"{host} is no address of this machine: check --host") from error
        yield listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
