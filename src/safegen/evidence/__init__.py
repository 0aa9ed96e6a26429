"""Evidence for auditors: one folder with what a ledger knows, signed, that others can check.

`gathering.gather` writes it, `checking.check_evidence` says whether it still is what was written.
"""
