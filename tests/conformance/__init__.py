"""Conformance: one suite per port, run by every implementation of it, the shipped doubles included."""
