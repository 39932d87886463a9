"""`unpackenv timings`: many starts read together, as tables on a terminal, as JSON, or as a page.

`log` reads the lines, `summary` and `comparison` make figures of them, `tables` and `charts` what people
look at, and `export`, `page` and the `terminal` of all reports bring that where it is wanted.
"""
