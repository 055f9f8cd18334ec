"""Agreement, intervals and corrected shares."""
