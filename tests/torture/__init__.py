"""The crash campaign: kills, power cuts, full disks, signals, crowds and flipped bytes.

    PYTHONPATH=tests python -m torture --csv benchmarks/results/torture.csv

`calls` watches every call of a command that changes the disk; `worlds` are small stores of which
all that may be visible is known; each other module is one part of the campaign, a list of counts.
"""
