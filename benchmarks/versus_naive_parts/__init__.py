"""Parts of the bench against the naive procedure."""
