"""Metrics, reports and rollout pages."""
