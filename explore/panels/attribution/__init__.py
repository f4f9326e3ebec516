"""The panel of attribution maps."""
