"""Diffusion models with diffusers' schedulers: tables, images, and pipelines of others."""
