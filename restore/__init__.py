"""Draws from `p(x | y)`: problems, priors, samplers, and the command that restores a person's pictures."""

__version__ = "0.1.0"
