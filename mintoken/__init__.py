"""Mintoken: a drop-in LLM proxy that makes answers shorter and proves what that saved."""

__version__ = "0.1.0"
