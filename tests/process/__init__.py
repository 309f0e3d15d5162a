"""Fault tests of the whole program: real processes, killed, starved and cut off, against counterparties in others."""
