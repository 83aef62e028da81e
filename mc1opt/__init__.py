"""mc1opt finds a good image classifier, and shows why it is good."""

__version__ = "0.1.0"
