"""Parts of the warehouse bench."""
