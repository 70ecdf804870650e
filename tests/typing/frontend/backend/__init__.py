"""An application with a value of every kind, for front ends that are checked against its types."""
