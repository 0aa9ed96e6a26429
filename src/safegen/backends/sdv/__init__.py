"""The Synthetic Data Vault (BUSL-1.1) behind safegen's contract: `pip install 'safegen[sdv]'`."""
