"""Parts of the bench of the stack."""
