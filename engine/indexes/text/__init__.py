"""
Text indexes: which documents have these words, and how well do they fit?

    words      from a text to its words; what an index has of a document
    asked      what is looked for, and whether a document has it
    scoring    BM25
    parts      documents of an index, their words turned round: arrays, and what is newer than these
    runs       what a word adds to the documents of a part, and to which it adds most
    weighing   how rare each word is over several parts, as of a timestamp
    ranking    the best of them
    index      all parts of one index, kept up with what is staged
    files      parts on disk
"""
