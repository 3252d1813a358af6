"""The README.md of a converted checkpoint: what it is, how it was made, how to use it."""

from __future__ import annotations

from ..byte_sizes import byte_size
from ..checkpoint.quantization import Packing
from .conversion_plan import ConversionPlan


def model_card(hub_id: str | None, plan: ConversionPlan) -> str:
    """The card's text.

    Args:
        hub_id: of what was converted; None if it was a folder.
        plan: what it became.
    """
    facts = ["library_name: mlx", "pipeline_tag: any-to-any", "tags:", "- mlx", "- gemma4"]
    if hub_id:
        facts += [f"base_model: {hub_id}"]
        if hub_id.startswith("google/"):
            facts += ["license: apache-2.0"]
    origin = f"[{hub_id}](https://huggingface.co/{hub_id})" if hub_id else "a local checkpoint"
    parts = "\n".join(f"| {part} | {byte_size(nbytes)} |" for part, nbytes in plan.part_bytes.items())
    rules = "\n".join(
        f"| `{rule.modules}`{' (beside experts)' if rule.beside_experts else ''} | {_packing(rule.packing)} |"
        for rule in plan.recipe.rules
    )
    table = f"\n| modules (the first line that fits decides) | packing |\n|---|---|\n{rules}\n" if rules else ""
    if plan.indivisible:
        table += f"\nKept because no group divides their columns: {', '.join(f'`{m}`' for m in plan.indivisible)}.\n"
    if plan.off_lattice:
        table += f"\nKept because they are not on the lattice: {', '.join(f'`{m}`' for m in plan.off_lattice)}.\n"
    return f"""---
{chr(10).join(facts)}
---

# Gemma 4 for MLX, {plan.recipe.name}

Converted from {origin} by gemma4-mlx with the recipe `{plan.recipe.name}`:
{plan.recipe.summary}.
What is not quantized is in {plan.dtype}.

| part | size |
|---|---|
{parts}
| all | {byte_size(plan.nbytes)} |
{table}
It runs on Apple silicon in gemma4-mlx, mlx-vlm and (text only) mlx-lm:

```sh
gemma4-mlx chat --model PATH_OR_NAME
python -m mlx_vlm.generate --model PATH_OR_NAME --prompt "Hello"
python -m mlx_lm.generate --model PATH_OR_NAME --prompt "Hello"
```
"""


def _packing(packing: Packing | None) -> str:
    if packing is None:
        return "as it is"
    return f"{packing.mode}, {packing.bits} bits, groups of {packing.group_size}"
