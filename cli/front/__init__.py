"""The console script: one command with all others as subcommands, and its shell completion."""
