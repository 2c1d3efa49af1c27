"""The fault laboratory: the guard is killed, lied to and cut off at every call that touches the disk.

`python -m faults` runs everything, `python -m faults --sample` what CI runs. See README.md here.
"""
