"""Importers: what other tools measured, as rows of our tables, for reading beside our own and never for judging.

`read_foreign` is the way in. No module here knows the warehouse: rows are stored by the command `steelyard import`.
"""

from steelyard.importers.common import Asked, Imported
from steelyard.importers.formats import detect, read_foreign

__all__ = ["Asked", "Imported", "detect", "read_foreign"]
