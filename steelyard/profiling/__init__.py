"""Where a deployment's time goes, by the engine's own account."""
