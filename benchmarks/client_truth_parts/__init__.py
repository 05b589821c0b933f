"""Parts of the bench that asks load clients for the truth."""
