"""Rows, frames and model inputs."""
