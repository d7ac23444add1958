"""What measures the relay has to be right itself: the upstream of the benchmarks, and the page."""
