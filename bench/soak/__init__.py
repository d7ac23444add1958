"""A soak: a steady stream through `relay serve` to an upstream that comes and goes. Start reading in `__main__`."""
