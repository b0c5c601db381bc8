"""Floor 1: rows in, forests out.

A user's file passes through *sources* (bytes to records), *shapes* (records to rows), *cleaning* (rows kept, or dropped with a
reason into the ledger), *splitting*, *rendering* (rows to tokens) and *packing* (segments to rows of tokens). No torch here.
"""
