"""What an operator does, one function each: begin with `queue`. `port` is how they reach the running house.

`documents` has the shape of every answer, `desk` is how a command asks, whether a relay runs or not.
"""
