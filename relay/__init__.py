"""The relay: a local SMTP relay proxy between software nobody can change and a modern provider.

Start reading at `docs/walk.md` (one message's walk), then `relay/wiring.py` (where the pieces meet).
"""

__version__ = "0.1.0"
