"""What an operator does, one function each: begin with `requests`, the table of what can be asked.

`documents` has the shape of every answer, `desk` is how a command asks, whether a relay runs or not.
"""
