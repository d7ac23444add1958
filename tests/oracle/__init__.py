"""aiosmtpd's own tests, asked about our session: an outside opinion on what a server should answer."""
