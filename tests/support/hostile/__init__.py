"""Hostile input: for every decoder and file reader, valid seeds, a mutator that knows their structure, and a runner.

`tests/fuzz.py` runs these targets millions of times, `test_hostile.py` a few hundred times each.
"""
