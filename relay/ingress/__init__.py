"""The way in: `smtp` (the wire), `session` (the conversation), `intake` and `data` (content), `accept`.

A session is made in layers, each a part of it: `smtp`, `intake` (DATA), `bdat`, `secure` (TLS, AUTH), `commands`,
`session`. Start with `accept`: decide, keep, then 250.
"""
