"""The engine of a test: in memory, with a clock that the test moves and a network of stubs."""
