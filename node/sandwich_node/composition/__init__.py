"""Where programs are put together: the factories for everything outside that an agent or a worker reaches.

One module for each process, so that neither imports what only the other one needs.
"""
