"""Generator families. Each is found through the entry-point group `safegen.backends`."""
