"""Tests of the adapters, one folder or file per platform, each driven over its real wire."""
