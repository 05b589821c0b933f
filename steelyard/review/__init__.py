"""The reviewer's desk: what a run's evidence is to the byte, who decided about it, and a ledger that cannot be edited.

`evidence` digests rows, `packet` is what is signed, `sign_off` signs and reads, `standing` says which decisions count,
`chain` is the ledger, `verify` holds all of it against what is stored.
"""
