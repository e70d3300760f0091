"""Sandwich's consumer SDK."""
