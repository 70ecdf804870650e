"""
Text indexes: which documents have these words, and how well do they fit?

    words      from a text to its words; what an index has of a document
    asked      what is looked for, and whether a document has it
    scoring    BM25
    parts      documents of an index, their words turned round: arrays, and what is newer than these
    ranking    the best of several parts as of a timestamp
    index      all parts of one index, kept up with what is staged
    files      parts on disk
"""
