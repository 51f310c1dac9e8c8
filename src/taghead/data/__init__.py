"""Annotations, datasets and generated clips."""
