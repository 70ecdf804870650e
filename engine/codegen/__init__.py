"""
What an application's schema and functions are to type checkers, written as files.

    typescript.py    what front ends import: `convex/_generated/`
    python.py        what the application itself imports: `_generated/` beside its modules
    files.py         files that are ours to write, to leave as they are and to remove

The text depends on the application alone, so that writing it again changes nothing.
"""
