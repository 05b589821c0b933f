"""Levers: what an engineer can pull, and which of them the installed engine really has on this machine."""
