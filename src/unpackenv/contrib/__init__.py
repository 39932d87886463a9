"""For engines that distribute work: what their workers need to start from an archive. No start imports it."""
