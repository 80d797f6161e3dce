"""The machine: ranks, signals, checkpoints, tracking, random numbers, schedules."""
