"""The panel of your own images."""
