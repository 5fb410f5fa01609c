"""The commands of `wavserve`, one module each: its arguments, what it calls, what it prints.

Called by `cli`. A module here imports the standard library and light modules only; the work is imported when it runs.
"""
