"""All that people read, in English and Dutch: `en.toml` and `nl.toml`; `language` reads them."""
