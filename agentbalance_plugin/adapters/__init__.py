"""One package per framework: the only code that knows it."""
