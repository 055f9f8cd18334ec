"""Completions sampled by a vLLM server: its client, requests, weights, and our plugin for it."""
