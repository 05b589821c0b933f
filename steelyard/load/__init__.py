"""Workloads, arrivals, the streaming client, and the blocks that interleave arms."""
