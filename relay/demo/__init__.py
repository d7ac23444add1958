"""`relay demo`: a small strict upstream, and the show."""
