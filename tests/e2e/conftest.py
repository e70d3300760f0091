from tests.support.served_cluster import programs

__all__ = ["programs"]
