"""Publishing: archives become artifacts of a registry, those for several platforms or Pythons with an index."""
