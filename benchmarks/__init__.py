"""One script per claim that the README makes. Each prints its own table; ratios come from rounds that alternate in one run."""
