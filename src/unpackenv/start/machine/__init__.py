"""What the machine allows: memory, CPUs, processes, mounts. It knows nothing of archives and trees."""
