"""Regular expressions that libraries write into everybody's schemas, without the look-around that llguidance lacks.

zod 4 writes one for an email address (colinhacks/zod#6573 drops the look-around and proves that nothing changes),
Pydantic 2.12 one for a Decimal (pydantic/pydantic#11987). Each is here with another that means the same.
"""

from __future__ import annotations

WITHOUT_LOOKING_AROUND = {
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$": (
        r"^([A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+\-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
    ),
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$",
}
