"""Prices with sources, and what a token costs on each arm."""
