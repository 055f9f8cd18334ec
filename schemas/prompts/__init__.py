"""Task prompts, one file per trace template."""
