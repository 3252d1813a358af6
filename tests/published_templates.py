"""Chat templates that real checkpoints carry, for tests: the makers' where `../shared/real` is there, always ours.

Not a test itself.
"""

from __future__ import annotations

from pathlib import Path

import gemma4_mlx

_ROOT = Path(__file__).parents[1]
REAL = _ROOT.parent / "shared" / "real" / "templates"
WHY_NO_REAL_ONES = f"the makers' templates are not in {REAL}"

BUILT_IN = "built-in"
_SOURCE = (Path(gemma4_mlx.__file__).parent / "demo" / "chat_template.jinja").read_text(encoding="utf-8")
_OPENING = """{%- if add_generation_prompt and not state.in_model_turn -%}
  {{- '<|turn>model\\n' -}}
{%- endif -%}"""
assert _SOURCE.rstrip().endswith(_OPENING)
# What the built-in one leaves to its makers: they open a thought after a result, and close an empty one without
# thinking.
_LARGE = """{%- if add_generation_prompt and not state.in_model_turn -%}
  {{- '<|turn>model\\n' + ('' if enable_thinking else '<|channel>thought\\n<channel|>') -}}
{%- elif add_generation_prompt and enable_thinking -%}
  {{- '<|channel>thought\\n' -}}
{%- endif -%}"""

TEMPLATES: dict[str, str] = {
    BUILT_IN: _SOURCE,
    "built-in large": _SOURCE.replace(_OPENING, _LARGE),
    **{path.stem: path.read_text(encoding="utf-8") for path in sorted(REAL.glob("*.jinja"))},
}
"""Name → source."""
