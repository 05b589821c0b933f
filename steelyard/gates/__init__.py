"""The gate: a pure function of recorded evidence and a frozen policy."""
