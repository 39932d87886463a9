"""From the bytes of an archive to the files of a tree, by several workers at once.

Which archive and which place was decided before, in `cold`; how one file is written safely is known to `tree`.
"""
