"""Dialogues of clients with the door, one habit or one attack a file: how they are written stands in `script`."""
