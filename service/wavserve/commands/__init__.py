"""The commands of `wavserve`, one module per command: its arguments, its call and its output.

At the top, a module imports only the standard library and light modules. It imports the code that does the work when
the command runs.
"""
