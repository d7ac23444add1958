"""The house of the scenarios is what is monitored here."""

from __future__ import annotations

from tests.scenarios.conftest import certificates, site

__all__ = ["certificates", "site"]
