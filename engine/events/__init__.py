"""Intervals of films: what people mark in annotation programs, and clips cut by it."""
