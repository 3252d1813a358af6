"""What an answer with a schema becomes: the JSON value, or an instance of a class that has a schema of its own.

A class is known by two methods, `model_json_schema` and `model_validate_json`: pydantic's names. Pydantic itself is not
needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any] | str | type
"""A JSON schema, as a dict or as JSON text, or a class of pydantic's kind."""


@dataclass(frozen=True)
class AnswerForm:
    """The form that an answer is to have.

    Attributes:
        schema: the JSON schema.
        read: the answer's text → its value. Raises ValueError.
    """

    schema: Mapping[str, Any] | str
    read: Callable[[str], Any]

    @classmethod
    def of(cls, schema: Schema) -> AnswerForm:
        """The form that a schema or a class asks for.

        Raises:
            ValueError: it is neither, or the class has no JSON schema.
        """
        if isinstance(schema, Mapping | str):
            return cls(schema, json.loads)
        describe, read = (getattr(schema, name, None) for name in ("model_json_schema", "model_validate_json"))
        if not isinstance(schema, type) or not callable(describe) or not callable(read):
            name = f"the class {schema.__name__}" if isinstance(schema, type) else f"a {type(schema).__name__}"
            raise ValueError(f"schema is {name}: give a JSON schema, or a class that derives from pydantic.BaseModel")
        try:
            described = describe()
        except Exception as error:  # pydantic's own, of types that JSON cannot say
            said = str(error).strip().partition("\n")[0]
            raise ValueError(f"the class {schema.__name__} has no JSON schema: {said}") from error
        return cls(described, read)
