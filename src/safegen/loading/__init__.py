"""How rows leave a dataset for training: verified row group by row group, and in batches."""
