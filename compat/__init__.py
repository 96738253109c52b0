"""What each version of the libraries does with a QLoRA run: isolated environments, one probe, docs/compat.md."""
