"""What an operator does, one function each. `port` is how they reach the running house."""
