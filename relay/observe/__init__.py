"""Those who watch: `fan_out` tells everybody, `log` writes lines, `metrics` counts."""
