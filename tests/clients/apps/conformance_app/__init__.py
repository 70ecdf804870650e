"""The application that clients are tried with."""
