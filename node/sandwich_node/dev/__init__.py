"""A whole cluster on one machine: for trying Sandwich out, and for its own tests."""
