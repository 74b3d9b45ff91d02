"""Programs compiled ahead of time for TPUs that are not there: whether they fit, and what they would do at best.

chips.py       chips and slices as they are published
programs.py    a task's training step and other programs, compiled for a slice
hlo.py         what the text of a compiled program says
report.py      `zoo doctor --tpu`
"""
