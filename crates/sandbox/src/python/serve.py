"""The process of the program: loads it and calls its functions for the process of the tests, which it cannot see."""

import builtins
import sys
import types

folder = sys.argv[1]
sys.path.insert(0, folder)
import codec

sys.path.remove(folder)
builtins.exit = builtins.quit = sys.exit
channel = codec.Channel()
objects = []


def keep(value):
    objects.append(value)
    return [len(objects) - 1, type(value).__name__, callable(value), isinstance(value, type)]


def kept(number):
    return objects[number]


def call(message):
    function, args, kwargs = message
    if isinstance(function, str):
        found = space
        if function not in space and hasattr(space.get("Solution"), function):
            function = "Solution." + function
        for part in function.split("."):
            found = found[part] if found is space else getattr(found, part)
            if isinstance(found, type) and "." in function:
                found = found()
    else:
        found = kept(function)
    args = [codec.decode(a, kept) for a in args]
    kwargs = {k: codec.decode(v, kept) for k, v in kwargs.items()}
    return codec.encode(found(*args, **kwargs), keep)


def names(_):
    out = {}
    for name, value in list(space.items()):
        if name.startswith("__"):
            continue
        if isinstance(value, types.ModuleType):
            out[name] = {"module": value.__name__}
        elif getattr(value, "__module__", None) not in (None, "solution") and callable(value):
            where = getattr(value, "__qualname__", "")
            out[name] = {"member": [value.__module__, where]}
        else:
            out[name] = {"value": codec.encode(value, keep)}
    return out


# Special methods are looked up on the type, as the interpreter does.
METHODS = ("__len__", "__getitem__", "__str__", "__int__", "__float__")


def method(message):
    number, name, args = message
    if name not in METHODS:
        raise AttributeError(name)
    value = kept(number)
    args = [codec.decode(a, kept) for a in args]
    return codec.encode(getattr(type(value), name)(value, *args), keep)


def attribute(message):
    number, name = message
    return codec.encode(getattr(kept(number), name), keep)


def begin(message):
    return keep(iter(kept(message)))[0]


def take(message):
    number, count = message
    out = []
    for item in kept(number):
        out.append(codec.encode(item, keep))
        if len(out) == count:
            break
    return out


def text_of(error):
    try:
        return str(error)[:2000]
    except BaseException:
        return ""


def load():
    with open(folder + "/solution.py", "rb") as file:
        exec(compile(file.read(), "solution.py", "exec"), space)


module = types.ModuleType("solution")
sys.modules["solution"] = module
space = module.__dict__
actions = {"call": call, "names": names, "method": method, "attribute": attribute, "iter": begin, "next": take}
try:
    load()
    failure = None
except BaseException as error:
    failure = [type(error).__name__, text_of(error)]
channel.send({"loaded": failure})
while True:
    try:
        request = channel.receive()
    except codec.Gone:
        break
    try:
        reply = {"ok": actions[request[0]](request[1])}
    except codec.Unsupported as error:
        reply = {"unsupported": str(error)}
    except BaseException as error:
        reply = {"error": [type(error).__name__, text_of(error)]}
    channel.send(reply)
