"""The commands, one file each. `main` puts them together; nothing heavy is imported before it is used."""
