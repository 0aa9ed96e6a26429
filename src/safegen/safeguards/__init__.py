"""One file per rule. A safeguard reports findings; it neither decides nor enforces."""
