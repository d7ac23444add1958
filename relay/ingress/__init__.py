"""The way in: `smtp` (the wire), `session` (the conversation), `data` (the content reader), `accept`.

Start with `accept`: decide, keep, then 250.
"""
