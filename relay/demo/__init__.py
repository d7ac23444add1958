"""`relay demo`: the relay at work on one machine, with an upstream of the demo's own behind it.

Start with `show`; `upstream` is the strict mail server, `mails` what legacy software sends,
`judgement` tells whether each arrived as it should, `board` puts it on the terminal.
"""
