"""One self-contained page a run, made from the published warehouse alone."""
