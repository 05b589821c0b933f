"""The nightly: every study in order under a budget, what changed over the nights, and who is told of it."""
