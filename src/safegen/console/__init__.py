"""The governance web page: what the ledger and the policy files say, for people and as JSON.

`safegen.console.app.console` makes it from a ledger, and `safegen serve` shows it. Pages are made
here and ask for nothing from elsewhere. They read; where editing was allowed, a person who has
signed in may save policy files, and each change is in the ledger's log.
"""
