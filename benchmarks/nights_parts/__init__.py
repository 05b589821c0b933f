"""Parts of the benches of the nightly: `crashes` and `nights`."""
