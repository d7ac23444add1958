"""The way in: `smtp` (the wire), `session` (the conversation), `intake` and `data` (content), `accept`.

Start with `accept`: decide, keep, then 250.
"""
