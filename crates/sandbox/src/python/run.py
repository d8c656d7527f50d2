"""Runs the program as `__main__`, with the two names the site module would have given it."""

import builtins
import sys

builtins.exit = builtins.quit = sys.exit
sys.argv = [sys.argv[1]]
with open(sys.argv[0], "rb") as file:
    code = compile(file.read(), "solution.py", "exec")
main = type(sys)("__main__")
main.__builtins__, main.__file__ = builtins, sys.argv[0]
sys.modules["__main__"] = main
exec(code, main.__dict__)
