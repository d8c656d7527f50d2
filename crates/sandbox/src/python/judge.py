"""The process of the tests: it never runs a line of the program. Calls go over a channel, and what comes back is a plain
value or a stand-in whose equality is identity. The last line it prints is one JSON list, an outcome for each test."""

import builtins
import json
import math
import os
import sys

folder = sys.argv[1]
sys.path.insert(0, folder)
import codec

sys.path.remove(folder)
builtins.exit = builtins.quit = sys.exit
sys.argv = [""]
channel = codec.Channel()
report = os.dup(1)
os.dup2(2, 1)


class CannotSend(BaseException):
    """A test that cannot be put to a program in another process."""


class Raised(Exception):
    """An exception of the program of a kind that only the program has."""


def raised(name, text):
    """The program's exception, as the same built-in kind where it is one."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration:
        try:
            error = kind(text)
        except TypeError:
            error = Raised(f"{name}: {text}")
    else:
        error = Raised(f"{name}: {text}")
    error.of_program = f"{name}: {text}"
    return error


def ask(action, message):
    channel.send([action, message])
    reply = channel.receive()
    if isinstance(reply, dict):
        if "ok" in reply:
            return reply["ok"]
        if isinstance(reply.get("error"), list) and len(reply["error"]) == 2:
            raise raised(*map(str, reply["error"]))
        if "unsupported" in reply:
            raise codec.Unsupported(str(reply["unsupported"]))
    raise codec.Unsupported("a reply that is no value")


class StandIn:
    """An object of the program. It has no equality of its own, so that a program cannot return what equals everything."""

    def __init__(self, number, kind):
        self._number, self._kind = number, kind

    def __call__(self, *args, **kwargs):
        return call(self._number, args, kwargs)

    def __iter__(self):
        number, count = ask("iter", self._number), 1
        while True:
            items = ask("next", [number, count])
            yield from (codec.decode(item, stand_in) for item in items)
            if len(items) < count:
                return
            count = min(2 * count, 64)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return codec.decode(ask("attribute", [self._number, name]), stand_in)

    def __bool__(self):
        return True


def forward(name):
    def method(self, *args):
        args = [codec.encode(a, number_of) for a in args]
        try:
            return codec.decode(ask("method", [self._number, name, args]), stand_in)
        except AttributeError as error:
            # As the interpreter does for a missing special method; list() asks for a length and expects this.
            wrong = TypeError(str(error))
            wrong.of_program = getattr(error, "of_program", None)
            raise wrong from None

    setattr(StandIn, name, method)


# Only what gives plain values: an order or a sum made by the program could answer whatever a test wants to hear.
for name in ("__len__", "__getitem__", "__str__", "__int__", "__float__"):
    forward(name)


def stand_in(sent):
    number, kind, _, _ = sent
    return StandIn(int(number), str(kind))


def number_of(value):
    if isinstance(value, StandIn):
        return value._number
    if isinstance(value, Function):
        return value._number
    raise CannotSend(f"a test passes a {type(value).__name__} to the program, which cannot be sent")


def call(function, args, kwargs):
    args = [codec.encode(a, number_of) for a in args]
    kwargs = {k: codec.encode(v, number_of) for k, v in kwargs.items()}
    return codec.decode(ask("call", [function, args, kwargs]), stand_in)


class Function(StandIn):
    """A function of the program by its name."""

    def __init__(self, name, number=None):
        StandIn.__init__(self, number, "function")
        self.__name__ = name

    def __call__(self, *args, **kwargs):
        return call(self.__name__, args, kwargs)


def space_of_program():
    """What the tests may call by name: functions of the program, and modules it imported, imported here anew."""
    space = {}
    for name, what in ask("names", None).items():
        try:
            if "value" in what:
                sent = what["value"]
                if isinstance(sent, dict) and "o" in sent:
                    number, _, is_callable, _ = sent["o"]
                    space[name] = Function(name, int(number)) if is_callable else stand_in(sent["o"])
                else:
                    space[name] = codec.decode(sent, stand_in)
            elif "module" in what:
                __import__(what["module"])
                space[name] = sys.modules[what["module"]]
            else:
                module, where = what["member"]
                __import__(module)
                space[name] = getattr(sys.modules[module], where)
        except (Exception, CannotSend, codec.Unsupported):
            space.setdefault(name, Function(name))
    return space


def short(value):
    try:
        return repr(value)[:300]
    except BaseException:
        return f"a {type(value).__name__}"


def close(got, expected, atol):
    """Equality as in Python, with a tolerance for floats; a list of the data stands for a tuple as well."""
    if isinstance(expected, bool) or isinstance(got, bool):
        return got == expected
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        if got == expected:
            return True
        tolerance = atol or (1e-6 if isinstance(expected, float) else 0)
        if not tolerance:
            return False
        if math.isnan(expected):
            return math.isnan(got)
        return math.isfinite(got) and abs(got - expected) <= tolerance + 1e-7 * abs(expected)
    if isinstance(expected, (list, tuple)) and isinstance(got, (list, tuple)):
        return len(got) == len(expected) and all(close(g, e, atol) for g, e in zip(got, expected))
    if isinstance(expected, dict) and isinstance(got, dict):
        keys = {k if isinstance(k, str) else json.dumps(k) if isinstance(k, (int, float)) else k: k for k in got}
        names = {k if k in got else str(k): k for k in expected}
        if len(got) != len(expected):
            return False
        return all((n in got or n in keys) and close(got[n] if n in got else got[keys[n]], expected[k], atol)
                   for n, k in names.items())
    if isinstance(expected, list) and isinstance(got, (set, frozenset)):
        try:
            return got == set(expected)
        except TypeError:
            return False
    return got == expected


def outcome(run):
    """How one test went."""
    try:
        difference = run()
    except codec.Gone:
        return {"v": "gone"}
    except CannotSend as error:
        return {"v": "unsupported", "reason": str(error)}
    except codec.Unsupported as error:
        return {"v": "error", "reason": str(error)}
    except AssertionError as error:
        of_program = getattr(error, "of_program", None)
        if of_program is not None:
            return {"v": "error", "reason": of_program}
        return {"v": "wrong", "expected": "the assertion holds", "got": short(str(error)) if str(error) else "it does not"}
    except MemoryError:
        return {"v": "memory"}
    except BaseException as error:
        of_program = getattr(error, "of_program", None)
        if of_program is not None:
            return {"v": "memory" if of_program.startswith("MemoryError") else "error", "reason": of_program}
        # An answer of another type than the test expects ends in an exception of the test.
        return {"v": "error", "reason": f"in the test: {type(error).__name__}: {str(error)[:500]}"}
    return difference or {"v": "ok"}


def run_calls(plan):
    name = plan["entry_point"]
    for test in plan["tests"]:

        def run():
            got = call(name, test["args"], test.get("kwargs") or {})
            if isinstance(got, StandIn):
                got = list(got)
            if not close(got, test["expected"], plan.get("atol") or 0):
                return {"v": "wrong", "expected": short(test["expected"]), "got": short(got)}

        yield outcome(run)


def run_asserts(plan):
    def prepare():
        space.update(space_of_program())
        space["__name__"] = "tests"
        if plan.get("entry_point"):
            space["candidate"] = Function(plan["entry_point"])
        exec(compile(plan.get("setup") or "", "tests.py", "exec"), space)

    def run():
        before = space.get("check")
        exec(compile(text, "tests.py", "exec"), space)
        check = space.get("check")
        if plan.get("entry_point") and check is not None and check is not before and not isinstance(check, Function):
            check(Function(plan["entry_point"]))

    space = {}
    problem = outcome(prepare)
    for text in plan["tests"]:
        try:
            compile(text, "tests.py", "exec")
        except (SyntaxError, ValueError) as error:
            yield {"v": "unsupported", "reason": f"the test is not Python: {error}"}
            continue
        yield problem if problem["v"] != "ok" else outcome(run)


def main():
    with open(folder + "/tests.json", "rb") as file:
        plan = json.load(file)
    count = len(plan["tests"])
    try:
        loaded = channel.receive()["loaded"]
    except (codec.Gone, codec.Unsupported, TypeError, KeyError):
        return [{"v": "gone"}] * count
    if loaded is not None:
        what = "memory" if str(loaded[0]) == "MemoryError" else "compile" if str(loaded[0]) in ("SyntaxError", "IndentationError", "TabError") else "error"
        return [{"v": what, "reason": f"{loaded[0]}: {loaded[1]}"}] * count
    done = []
    for one in (run_calls if plan["kind"] == "calls" else run_asserts)(plan):
        done.append(one)
        if one["v"] == "gone":
            break
        if one["v"] != "ok" and plan.get("stop_early"):
            break
    return done


try:
    result = main()
except codec.Gone:
    result = []
with os.fdopen(report, "w") as out:
    out.write(json.dumps(result))
