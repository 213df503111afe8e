"""The driver in a process of its own: `serve` runs it, `installation` puts it into a system."""
