"""Arrow in and out: sources, batches, schemas, canonical cells, the codec."""
