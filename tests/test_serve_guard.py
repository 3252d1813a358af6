"""What `gemma4-mlx serve` refuses: strangers, pages of other sites, files and addresses, and what has no measure."""

from __future__ import annotations

import http.client
import json
import random
import socket
from urllib.parse import urlsplit

import pytest

from command_line import only_line, run, scratch
from served import address, metric, served, wait_until_idle

HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2}
CHAT = "/v1/chat/completions"


def ask(
    body: object = None, path: str = CHAT, url: str | None = None, method: str = "POST", **headers: str
) -> tuple[int, dict]:
    """A request as it is, whatever it is: status and JSON."""
    connection = http.client.HTTPConnection(urlsplit(url or address()).netloc, timeout=60)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, json.loads(content)


def refused(status: int, *arguments: object, **headers: str) -> str:
    """The message with which a request is refused."""
    got, answer = ask(*arguments, **headers)
    assert got == status, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    return answer["error"]["message"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "user@localhost", ""])
def test_a_host_that_is_not_this_machine_is_refused(host):
    assert "localhost" in refused(403, HELLO, Host=host)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "file://", "http://[", ""])
def test_a_page_of_another_origin_is_refused(origin):
    assert "origins" in refused(403, HELLO, Origin=origin)


def test_this_machine_may_ask_by_each_of_its_names_and_its_own_pages_may():
    port = urlsplit(address()).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert ask(HELLO, Host=host)[0] == 200
    assert ask(HELLO, Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200


def test_no_page_is_let_in_by_cors():
    connection = http.client.HTTPConnection(urlsplit(address()).netloc)
    connection.request("OPTIONS", CHAT, headers={"Access-Control-Request-Method": "POST"})
    response = connection.getresponse()
    assert response.status == 405
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


def test_another_address_needs_a_key():
    finished = run("serve", "-m", "demo", "--port", "0", "--host", "0.0.0.0")
    assert finished.returncode == 1
    assert "--api-key-file" in only_line(finished.stderr)
    for arguments in (("--api-key", "short"), ("--api-key-file", "/nowhere"), ("--api-key", "long enough with spaces")):
        finished = run("serve", "-m", "demo", "--port", "0", *arguments)
        assert finished.returncode == 1
        assert only_line(finished.stderr)


def test_who_does_not_know_the_key_gets_nothing_and_who_wants_another_model_can_be_told():
    file = scratch() / "key"
    file.write_text("correct-horse\n")
    process, url = served("--api-key-file", str(file), "--strict-model")
    try:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "correct-horse"}, {"x_api_key": "é"}):
            for path in (CHAT, "/v1/models", "/metrics", "/nothing"):
                assert "API key" in refused(401, HELLO, path, url, "POST", **headers)
        assert ask(HELLO, url=url, Authorization="Bearer correct-horse")[0] == 200
        assert ask(HELLO, url=url, x_api_key="correct-horse")[0] == 200
        assert ask({**HELLO, "model": "demo"}, url=url, x_api_key="correct-horse")[0] == 200
        assert "demo" in refused(404, {**HELLO, "model": "gpt"}, CHAT, url, "POST", x_api_key="correct-horse")
        assert ask(path="/health", url=url, method="GET")[0] == 200
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "~/secret.png",
        "FILE:/etc/passwd",
        "http://169.254.169.254/latest",
        "https://example.com/a.png",
        " data:image/png;base64,AAAA/../../etc/passwd",
        "data:nothing",
        "",
    ],
)
def test_no_file_and_no_address_is_opened_wherever_a_request_names_one(source):
    parts = [
        {"type": "image_url", "image_url": {"url": source}},
        {"type": "video_url", "video_url": {"url": source}},
        {"type": "image_url", "image_url": {"url": source, "path": source}},
        {"type": "input_audio", "input_audio": {"data": source, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"url": source}},
        {"type": "image", "image": source},
        {"type": "image_url", "image_url": source},
        {"type": "text", "text": "x", "image": source},
    ]
    for part in parts:
        for role, more in (("user", {}), ("system", {}), ("tool", {"tool_call_id": "1"}), ("assistant", {})):
            refused(400, {"messages": [*HELLO["messages"], {"role": role, "content": [part], **more}]})
    for field in ("images", "parts", "tool_responses"):
        refused(400, {"messages": [{"role": "assistant", "content": "x", field: [{"image": source, "type": "image"}]}]})


def test_what_is_too_large_is_refused_before_it_is_held():
    host, port = urlsplit(address()).hostname, urlsplit(address()).port
    with socket.create_connection((host, port), timeout=20) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {10**9}\r\n\r\n"
        connection.sendall(head.encode() + b"[" * 1000)
        assert b" 413 " in connection.recv(100)
    assert "nested" in refused(400, b'{"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}")
    assert "nested" in refused(400, b'{"messages":' + b'{"a":' * 200_000)
    assert "values" in refused(400, {"messages": [0] * 300_000})
    large = {"type": "object", "properties": {f"field {number}" * 30: {} for number in range(2000)}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": large}}
    assert "KiB" in refused(400, {**HELLO, "response_format": form})
    tool = {"type": "function", "function": {"name": "f"}}
    assert "128" in refused(400, {**HELLO, "tools": [tool] * 129})
    pixel = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert "64" in refused(400, {"messages": [{"role": "user", "content": [pixel] * 65}]})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": NaN}', b'{"a": 1' + b"0" * 5000])
def test_a_body_that_is_no_json_object_is_refused(body):
    refused(400, body)


def test_unknown_paths_and_methods_are_refused_in_the_same_form():
    assert refused(404, HELLO, "/v1/nothing")
    assert refused(405, None, CHAT, None, "GET")


def test_half_a_character_comes_back_as_a_refusal():
    refused(400, b'{"messages": [{"role": "user", "content": "\\ud800"}]}')
    refused(400, b'{"\\udfff": 1, "messages": [{"role": "user", "content": "x"}]}')


SEEDS = [
    {
        **HELLO,
        "temperature": 0.5,
        "stop": ["x"],
        "seed": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
    },
    {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "done"},
        ],
        "max_tokens": 2,
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
        "chat_template_kwargs": {"enable_thinking": False},
    },
]
ODD = [
    None,
    True,
    0,
    -1,
    1e308,
    2**70,
    "",
    "x",
    "\ud800",
    "\0",
    [],
    {},
    [[]],
    {"a": {}},
    "<turn|>",
    "file:///etc/passwd",
]


def mutated(chance: random.Random) -> bytes:
    """A request of which something is odd."""
    body = json.loads(json.dumps(chance.choice(SEEDS)))
    for _ in range(chance.randint(1, 3)):
        at = body
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            keys = [key for key in keys if key != "max_tokens"]  # or a small model goes on for ever
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(at[key], dict | list) and chance.random() < 0.7:
                at = at[key]
                continue
            if chance.random() < 0.2:
                del at[key]
            else:
                at[key] = chance.choice(ODD)
            break
    data = json.dumps(body).encode()
    if chance.random() < 0.2:
        cut = chance.randrange(len(data))
        data = data[:cut] + bytes([chance.randrange(256)]) + data[cut + chance.randint(0, 3) :]
    return data


def test_mutated_bodies_are_answered_or_refused_and_nothing_stays():
    chance = random.Random(1)
    for _ in range(200):
        data = mutated(chance)
        connection = http.client.HTTPConnection(urlsplit(address()).netloc, timeout=60)
        connection.request("POST", CHAT, data.replace(b'"max_tokens": 2', b'"max_tokens": 1'))
        response = connection.getresponse()
        content = response.read()
        assert response.status in (200, 400), (data, content)
        assert json.loads(content).get("error", {}).get("type") in (None, "invalid_request_error")
        connection.close()
    wait_until_idle()
    assert metric("requests_in_work") == 0
