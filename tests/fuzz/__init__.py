"""What holds for any octets, as properties; hypothesis asks for it in the suite, atheris in `fuzz/`."""
