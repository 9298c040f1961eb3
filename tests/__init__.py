"""Canopy's tests, a mirror of the tree."""
