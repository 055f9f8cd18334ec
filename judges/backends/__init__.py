"""Models behind one async interface: Claude, OpenAI-compatible servers, local transformers."""
