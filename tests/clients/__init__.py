"""Clients as they are found: programs that send mail for a living, and those that mean harm."""
