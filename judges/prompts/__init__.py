"""Judge prompts, one versioned file each."""
