"""The ways out. `port` is the seam; one file each for the ways: `smtp` (its protocol is `transaction`), `https` (its
requests are `exchange`), `capture`."""
