"""Those who watch: `fan_out` tells everybody, `log` writes lines, `metrics` counts.

Start with `wording` (what each event says in the log) and `tally` (what it counts).
"""
