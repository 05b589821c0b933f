"""Dagster assets, thin: read, call the library, store, report."""
