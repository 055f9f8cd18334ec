"""Predictions and what they are worth: generation, scores, intervals, comparisons, the report."""
