"""The governance web page: what a ledger holds, for people who answer for it."""
