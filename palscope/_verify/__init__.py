"""A self-check for whoever has weights or a GPU: a hooked model beside the same without hooks."""

from palscope._verify.report import Report
from palscope._verify.results import Result
from palscope._verify.run import Sides, probe_clip, sides_of, verify

__all__ = ["Report", "Result", "Sides", "probe_clip", "sides_of", "verify"]
