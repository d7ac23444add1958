"""The way in: `smtp` (the session), `data` (the content reader), `accept` (decide, keep, then 250)."""
