"""The benchmarks that `load_data` knows by name, and how they are made from raw public folders."""
