"""The governance web page: what the ledger and the policy files say, for people and as JSON.

`safegen.console.app.console` makes it from a ledger; `safegen serve` shows it. It is server-rendered
and asks for nothing from elsewhere. It reads; where it was allowed to edit, a person who has signed
in may save policy files, and each change is in the ledger's log.
"""
