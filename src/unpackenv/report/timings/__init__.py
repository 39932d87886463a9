"""`unpackenv timings`: many starts read together, as tables on a terminal, as JSON, or as a page.

`log` reads the lines, `summary` and `comparison` compute figures, `tables` and `charts` show them, and
`export`, `page` and the `terminal` that all reports share write the result.
"""
