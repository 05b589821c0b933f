"""The sections of a report: each turns Facts into what its template shows, and decides nothing."""
