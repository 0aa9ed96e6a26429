"""Sampling and fitting on Ray, for those whose one machine is not enough."""
