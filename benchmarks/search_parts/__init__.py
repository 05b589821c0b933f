"""Parts of the bench of the search."""
