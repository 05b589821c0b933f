"""Parts of the real A/A bench."""
