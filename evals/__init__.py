"""lm-eval suites, their scorers, and the runner that drives them against served engines."""
