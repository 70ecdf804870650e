"""
Vector indexes: which documents lie in about the same direction?

    rows       from a field to its row of numbers of length 1, and the score of two of them
    asked      what is looked for, as it is written; no numpy
    entry      what an index has of a document, and what a search has read
    parts      rows of an index: arrays, those that are full and the one that grows
    nearest    the best rows of several parts as of a timestamp, exactly
    graph      the same in about, and in much less time
    index      all parts of one index, kept up with what is staged
    check      is what an index has what its documents have?

All but `asked` need numpy, which comes with the extra `vectors`, as does the library of `graph`.
"""
