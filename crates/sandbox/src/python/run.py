"""Runs the program as `__main__`, with the two names the site module would have given it."""

import builtins
import sys

builtins.exit = builtins.quit = sys.exit
sys.argv = [sys.argv[1]]
space = sys.modules["__main__"].__dict__
with open(sys.argv[0], "rb") as file:
    code = compile(file.read(), "solution.py", "exec")
for name in ("builtins", "file"):
    del space[name]
space.pop("name", None)
space["__file__"] = sys.argv[0]
exec(space.pop("code"), space)
