"""The configuration file: `load` reads it, `model` says what may stand in it, `compile` makes policy values of it."""
