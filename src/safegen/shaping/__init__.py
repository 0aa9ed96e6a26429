"""Which candidates become rows: selection and tails, inside a block, with constants fixed once."""
