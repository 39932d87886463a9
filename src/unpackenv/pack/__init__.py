"""What runs when an image is built: make an archive of installed packages, and a runtime.

`archive` defines the layout of an archive. A runtime has none of these modules, and no start imports them.
"""
