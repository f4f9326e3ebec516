"""Widgets of our own: pictures, points that move through a map, HTML with parts that can be clicked."""
