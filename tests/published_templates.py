"""Chat templates that real checkpoints carry, for tests: the makers' where `../shared/real` is there, always ours.

Not a test itself.
"""

from __future__ import annotations

from pathlib import Path

import gemma4_mlx

_ROOT = Path(__file__).parents[1]
REAL = _ROOT.parent / "shared" / "real" / "templates"

BUILT_IN = "built-in"
TEMPLATES: dict[str, Path] = {
    BUILT_IN: Path(gemma4_mlx.__file__).parent / "demo" / "chat_template.jinja",
    **{path.stem: path for path in sorted(REAL.glob("*.jinja"))},
}
WHY_NO_REAL_ONES = f"the makers' templates are not in {REAL}"
