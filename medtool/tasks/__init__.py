"""Families that plugins extend."""
