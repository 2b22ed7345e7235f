"""The sections of docs/benchmarks.md: each is made of the results and settings of one JSON."""
