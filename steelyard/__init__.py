"""Steelyard: which LLM inference optimizations deserve production, proved night after night."""

__version__ = "0.1.0"
