"""The Steelyard suites: lm-eval task files, their local data, loader and scorers."""
