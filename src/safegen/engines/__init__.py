"""Where sampling runs. Blocks are pure functions of (model, seed, number), so it does not matter."""
