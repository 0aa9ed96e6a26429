"""CTGAN and TVAE (BUSL-1.1) behind safegen's contract: `pip install 'safegen[ctgan]'`."""
