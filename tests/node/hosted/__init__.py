"""The application that the tests of hosts open."""
