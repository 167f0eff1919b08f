"""Models on their way between files: jepakit's own, and those of others."""

from jepakit.weights.formats import read as read
