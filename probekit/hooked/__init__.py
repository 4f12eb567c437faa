"""Hooked models: cards, loading, adapters, and the native toy models."""
