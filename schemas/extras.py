"""Which extra of the installation brings a package, for whoever has not installed it."""

EXTRA_OF_PACKAGE = {
    "anthropic": "claude",
    "openai": "openai",
    "torch": "local",
    "torchvision": "local",
    "transformers": "local",
    "trl": "train",
    "peft": "train",
    "scipy": "audit",
    "gradio": "ui",
}


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to install, in one sentence; None where no extra of ours brings the module."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRA_OF_PACKAGE:
        return None
    return (
        f"needs the package {package}, which is not installed:"
        f' pip install "p2r[{EXTRA_OF_PACKAGE[package]}]"'
    )
