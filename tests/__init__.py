"""Tests of Palaver, and the fake counterparties they run against."""
