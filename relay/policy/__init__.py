"""What should happen to a submission: rules, rewriting, classification, decisions, schedules.

Pure functions over frozen values; time and chance come in as values. Start with `decide`.
"""
