"""What holds for every test: no leftovers, the long ones first, and no verdict by the speed of the machine."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.support.leftovers", "tests.support.ordering"]

# An example may take as long as it likes: on a loaded machine each of them can.
settings.register_profile("sandwich", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("sandwich")
