"""Mail we answer for. `model` has the values, `store` the seam, `sqlite` the store we ship.

Start with `store`: what it promises is what "250 means kept" rests on.
"""
