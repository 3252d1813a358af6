"""How fast this machine runs a Gemma 4, and in how much memory: measured, described, compared. Shows nothing."""

from .engines import OURS, PEERS, engine_version
from .measure import MeasuringError, Request, measure
from .report import Comparison, Measurement, Plan, Result, compare, read_result, report_dict

__all__ = [
    "OURS",
    "PEERS",
    "Comparison",
    "Measurement",
    "MeasuringError",
    "Plan",
    "Request",
    "Result",
    "compare",
    "engine_version",
    "measure",
    "read_result",
    "report_dict",
]
