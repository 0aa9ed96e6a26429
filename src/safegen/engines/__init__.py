"""Where sampling runs. A block is a pure function of (model, seed, number), so it is all one."""
