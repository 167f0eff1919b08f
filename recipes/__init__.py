"""Installed as ``jepakit.recipes``."""
