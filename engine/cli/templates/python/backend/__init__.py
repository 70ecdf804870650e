"""The application: every module here is one of functions, and schema.py says what is stored."""
