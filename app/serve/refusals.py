"""What a request is refused with: a status, one line that says what to do, and what programs go by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from gemma4_mlx.errors import ContextLengthError, Gemma4Error


class Refusal(Exception):  # noqa: N818  what a request gets, not what went wrong
    """An answer other than the one asked for.

    Attributes:
        status: of HTTP.
        message: one line.
        param: the field of the request that is wrong.
        code: a word for programs.
        retry_after: seconds, for who is to come again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def type(self) -> str:
        """OpenAI's word for the kind of error."""
        match self.status:
            case 401:
                return "authentication_error"
            case 403:
                return "permission_error"
            case 404:
                return "not_found_error"
            case 429:
                return "rate_limit_error"
            case status if status >= 500:
                return "server_error"
        return "invalid_request_error"

    def body(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def anthropic_body(self) -> dict[str, Any]:
        """In Anthropic's form."""
        kind = "api_error" if self.type == "server_error" else self.type
        return {"type": "error", "error": {"type": kind, "message": self.message}}

    def response(self, path: str) -> Response:
        """The same as a response, in the form of the endpoint at `path`."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return json_response(
            self.anthropic_body() if path.startswith("/v1/messages") else self.body(), self.status, headers
        )


def refusal_of(error: Exception) -> Refusal:
    """What the library's errors are to a client."""
    if isinstance(error, Refusal):
        return error
    message = " ".join(str(error).split())
    if isinstance(error, ContextLengthError):
        return Refusal(message, param="messages", code="context_length_exceeded")
    if isinstance(error, Gemma4Error | ValueError):
        return Refusal(message)
    return Refusal("the computation failed: try again, or send less at a time", status=500, code="computation_failed")


def check_speech(language: str | None, translate_to: str | None, words: Sequence[str], param: str) -> None:
    """Raise Refusal for languages and own words that speech cannot be asked for with."""
    from gemma4_mlx.speech.prompts import speech_prompt

    try:
        speech_prompt(language, translate_to, words)
    except ValueError as error:
        raise Refusal(str(error), param=param) from None


def json_text(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Half characters, which a client may have sent in a name, cannot be sent back."""
    return Response(json_text(value).encode(errors="replace"), status, headers, "application/json")
