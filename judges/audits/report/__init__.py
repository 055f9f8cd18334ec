"""Reports what labels and verdicts say."""
