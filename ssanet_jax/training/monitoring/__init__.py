"""What a run shows: terminal, metrics, gate statistics and profiler traces."""
