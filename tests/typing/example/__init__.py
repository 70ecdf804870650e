"""An application that uses most of the API, and that type checkers have nothing to say about."""
