"""Bringing real images into a store."""
