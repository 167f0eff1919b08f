"""Installed as ``jepakit.configs``."""
