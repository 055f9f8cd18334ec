"""The nouns, in memory and at rest. Imports nothing else of ours and nothing heavy."""
