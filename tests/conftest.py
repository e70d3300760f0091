"""What holds for every test: no leftovers, the long ones first, and no verdict by the speed of the machine."""

import os
import signal
import sys

from hypothesis import HealthCheck, settings

# A shell starts what runs in the background with SIGINT ignored, and children inherit that: Ctrl-C is tested here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start hundreds of processes of ours. Each would compile our modules again, a third of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# No test trusts a public authority. OpenSSL takes a tenth of a start to read them all.
os.environ["SSL_CERT_FILE"] = os.devnull

pytest_plugins = [
    "tests.support.collecting",
    "tests.support.leftovers",
    "tests.support.programs",
    "tests.support.ordering",
]

# An example may take as long as it likes: on a loaded machine each of them can.
settings.register_profile("sandwich", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("sandwich")
