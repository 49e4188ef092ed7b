"""The page for people at `/`, and the training runs that it shows."""

from preceptor_services.dashboard.dashboard import Dashboard

__all__ = ["Dashboard"]
