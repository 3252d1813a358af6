"""Pictures and sound that come within a JSON body: their bytes, never a path, and no address."""

from __future__ import annotations

import base64
import binascii
import urllib.parse

from .fields import Fields

MOST_MEDIA = 64
"""Pictures, sounds and videos of one request."""


def data_url(fields: Fields, field: str, url: str) -> bytes:
    """What a `data:` URL holds. Raises Refusal for any other address."""
    scheme, _, rest = url.partition(":")
    if scheme.strip().lower() != "data":
        fields.refuse(field, "only data: URLs are read here, no address and no file: send the bytes in base64")
    head, comma, data = rest.partition(",")
    if not comma:
        fields.refuse(field, "a data: URL has a comma before its data")
    if head.lower().endswith(";base64"):
        return decoded(fields, field, urllib.parse.unquote(data))
    return urllib.parse.unquote_to_bytes(data) or fields.refuse(field, "is empty")


def decoded(fields: Fields, field: str, data: str) -> bytes:
    """Base64. Raises Refusal."""
    try:
        content = base64.b64decode("".join(data.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        fields.refuse(field, "is not base64")
    return content or fields.refuse(field, "is empty")
