"""What the RFCs know: addresses, paths, headers, content, replies, outcomes, reports.

Pure: no I/O, no clock, no chance, no log. Start with `envelope`, `header` and `content`.
"""
