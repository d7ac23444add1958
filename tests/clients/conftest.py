"""What the clients meet: the folder and certificates of the scenarios."""

from tests.scenarios.conftest import certificates, site

__all__ = ["certificates", "site"]
