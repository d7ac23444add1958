"""Those who watch: `fan_out` tells everybody, `log` writes lines, `metrics` counts, `recent` and `clients` remember.

Start with `wording` (what each event says in the log), `tally` (what it counts) and `needs_a_person`.
"""
