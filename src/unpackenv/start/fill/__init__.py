"""Names first: a tree is published with the names of its files, and their contents arrive while the application runs.

Each file that is not filled yet has a lease (fcntl(2)): the kernel makes everybody wait who opens it, and tells its
holder. What lives here: the leases, the processes that hold them and fill the files, and what a start does that finds
such a tree. What does not: how a tree is written before the application starts (`unpack`, `tree`).
"""
