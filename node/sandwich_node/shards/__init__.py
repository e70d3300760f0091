"""A running shard: its connection, its events, its requests, and its hand-over. `runner.py` joins the parts."""
