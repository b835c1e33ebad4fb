"""Files of a workdir: their names, lock, atomic writes and reads."""
