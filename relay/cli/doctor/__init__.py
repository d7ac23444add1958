"""`relay doctor`: everything that mail needs, looked at once.

`of_…` judge what was seen, and are pure: values in, findings out. `see_…` look, and touch nothing that is in use:
no mail is sent, no running relay's database is opened, and each upstream is logged in to once at most.
"""
