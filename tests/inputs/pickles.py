"""Pickles: with harmless objects of all kinds, and hostile ones, written with the standard library alone."""

import argparse
import collections
import contextlib
import datetime
import decimal
import enum
import functools
import io
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import types
import uuid

import numpy as np


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


CALLS = {
    "posix.system": (os.system, "touch PWNED"),
    "eval": (eval, "open('PWNED', 'w')"),
    "exec": (exec, "open('PWNED', 'w')"),
    "getattr": (getattr, "a", "b"),
    "subprocess.Popen": (subprocess.Popen, ["touch", "PWNED"]),
    "open": (io.open, "PWNED", "w"),
    "__import__": (__import__, "os"),
    "loads": (pickle.loads, b"cos\nsystem\n(Vtouch PWNED\ntR."),
    "numpy.frombuffer": (np.frombuffer, b"1234"),
    "random.Random": (random.Random,),
}
"""Functions with arguments, by the end of the name in the pickle."""


def calling(name):
    """An object whose pickle makes a call of `CALLS`."""
    return Calls(*CALLS[name])


def text(value):
    """The opcodes of a string."""
    return b"X" + len(value).to_bytes(4, "little") + value


TOUCH = text(b"touch PWNED")
NESTED = b"cos\nsystem\n(Vtouch PWNED\ntR."
LONG_LIST = b"](" + b"K\x00" * 100_000 + b"e"
PROGRAMS = {
    "REDUCE": (b"\x80\x02cos\nsystem\n" + TOUCH + b"\x85R.", "os.system"),
    "INST": (b"(" + TOUCH + b"ios\nsystem\n.", "os.system"),
    "OBJ": (b"\x80\x02(cos\nsystem\n" + TOUCH + b"o.", "os.system"),
    "NEWOBJ": (b"\x80\x02cos\nsystem\n" + TOUCH + b"\x85\x81.", "os.system"),
    "NEWOBJ_EX": (b"\x80\x04cos\nsystem\n" + TOUCH + b"\x85}\x92.", "os.system"),
    "BUILD": (b"\x80\x02cos\nsystem\n)R}" + text(b"__setstate__") + b"cos\nsystem\nsb.", "os.system"),
    "BUILD of a class": (b"\x80\x02cbuiltins\ndict\n}" + text(b"__init__") + TOUCH + b"sb.", "builtins.dict"),
    "EXT1": (b"\x80\x02\x82\x01)R.", "extension 1"),
    "EXT2": (b"\x80\x02\x83\x01\x01)R.", "extension 257"),
    "EXT4": (b"\x80\x02\x84\x01\x01\x01\x01)R.", "extension 16843009"),
    "copyreg": (
        b"\x80\x02ccopyreg\nadd_extension\n(" + text(b"os") + text(b"system") + b"K\x01tR.", "copyreg.add_extension"
    ),
    "name with dots": (
        b"\x80\x04" + text(b"os") + text(b"path.os.system") + b"\x93" + TOUCH + b"\x85R.", "os.path.os.system"
    ),
    "attribute of a class": (b"\x80\x02ctorch\nFloatStorage.__class__\n)R.", "torch.FloatStorage.__class__"),
    "method of a container": (b"\x80\x02ccollections\nOrderedDict.fromkeys\n)R.", "collections.OrderedDict.fromkeys"),
    "torch.hub": (b"\x80\x02ctorch.hub\nload\n" + TOUCH + b"\x85R.", "torch.hub.load"),
    "nested pickle": (b"\x80\x03cpickle\nloads\nC" + bytes([len(NESTED)]) + NESTED + b"\x85R.", "pickle.loads"),
    "torch's nested pickle": (
        b"\x80\x03ctorch.storage\n_load_from_bytes\nC\x02N.\x85R.", "torch.storage._load_from_bytes"
    ),
    "call through a tensor with attributes": (
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n" + TOUCH + b"\x85}tR.",
        "os.system",
    ),
    "PERSID": (b"Pos.system\n.", re.compile("the opcode PERSID")),
    "persistent id": (b"\x80\x02cos\nsystem\nQ.", re.compile("persistent id that is none of torch's")),
    "out-of-band buffer": (b"\x80\x05\x97.", re.compile("the opcode NEXT_BUFFER")),
    "huge string": (b"\x80\x02X\xff\xff\xff\x7fabc.", re.compile("cannot be read")),
    "huge bytes": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", re.compile("cannot be read")),
    "memo bomb": (
        b"\x80\x02ctorch\nSize\nq\x01" + LONG_LIST + b"\x85q\x020" + b"](" + b"h\x01h\x02R" * 1000 + b"e.",
        re.compile("copies more than"),
    ),
    "doubled a hundred times": (
        b"\x80\x02cos\nsystem\n]q\x000" + b"](h\x00h\x00eq\x000" * 100 + b"h\x00b.", "os.system"
    ),
    "a text said often": (
        b"\x80\x02c_codecs\nencode\nq\x01" + text(b"x" * 1_000_000) + text(b"latin1") + b"\x86q\x020"
        + b"(" + b"h\x01h\x02R" * 1000 + b"lb.",
        "_codecs.encode",
    ),
}  # fmt: skip
"""By name: the pickle, and the name that it is kept under or a pattern of the refusal."""

DEEP = {
    "value": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "key": b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",
    "member": b"\x80\x04\x8f()" + b"\x85" * 100_000 + b"\x90.",
    "name": b"\x80\x04)" + b"\x85" * 100_000 + text(b"a") + b"\x93.",
    "arguments": b"\x80\x02cos\nsystem\n)" + b"\x85" * 100_000 + b"R.",
    "persistent id": b"\x80\x02)" + b"\x85" * 100_000 + b"Q.",
    "shape": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NN)" + b"\x85" * 100_000 + b")tR.",
}
"""Values nested a hundred thousand times, in each place."""


class Level(enum.Enum):
    """An enum of the test's own."""

    LOW = 1


ELSEWHERE = ("mmengine", "omegaconf", "yacs", "lightning_trainer")
"""Packages that are not installed."""


@contextlib.contextmanager
def modules_elsewhere():
    """Classes of packages that are not installed, for as long as a pickle is written: {name: class}."""
    kinds = {
        "mmengine.config.config.ConfigDict": (dict,),
        "mmengine.logging.history_buffer.HistoryBuffer": (),
        "omegaconf.dictconfig.DictConfig": (),
        "yacs.config.CfgNode": (dict,),
        "lightning_trainer.state.Tags": (list,),
    }
    added, classes = set(), {}
    for path, bases in kinds.items():
        module_name, _, name = path.rpartition(".")
        parts = module_name.split(".")
        for end in range(1, len(parts) + 1):
            parent = ".".join(parts[:end])
            if parent not in sys.modules:
                sys.modules[parent] = types.ModuleType(parent)
                added.add(parent)
        classes[name] = type(name, bases, {"__module__": module_name})
        setattr(sys.modules[module_name], name, classes[name])
    try:
        yield classes
    finally:
        for name in added:
            del sys.modules[name]


def harmless():
    """Objects that trainers leave beside the tensors, by what they are."""
    return {
        "date": datetime.datetime(2023, 6, 1, 12, tzinfo=datetime.timezone.utc),  # noqa: UP017
        "duration": datetime.timedelta(seconds=3),
        "path": pathlib.Path("work_dirs/run"),
        "counter": collections.Counter("abca"),
        "counts": collections.defaultdict(list, {"a": [1]}),
        "queue": collections.deque([1, 2], maxlen=3),
        "partial": functools.partial(int, base=2),
        "enum": Level.LOW,
        "decimal": decimal.Decimal("0.1"),
        "id": uuid.UUID(int=3),
        "settings": argparse.Namespace(model="beit", drop=0.1),
        "complex": 1j,
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "range": range(3),
        "slice": slice(1, 2),
        "exception": ValueError("not a number"),
        "class": dict,
        "function": os.path.join,
        "keys of all kinds": {(0, 1): 1, Level.LOW: 2, pathlib.Path("a"): 3, 1.5: 4, None: 5, frozenset("ab"): 6},
        "scalar": np.float64(2.0),
        "array": np.arange(3.0),
        "objects": np.array([None, "a"], dtype=object),
        "records": np.zeros(1, [("a", np.float32), ("b", object)]),
        "dtype": np.dtype("float32"),
        "rng": random.getstate(),
        "rng of NumPy": np.random.default_rng(0),
        "old rng of NumPy": np.random.RandomState(0).get_state(),
    }


def dumps_beside(objects, protocol):
    """The pickle of objects with those of packages that are not installed among them, as values of their keys."""
    with modules_elsewhere() as classes:
        settings = classes["ConfigDict"](model=classes["CfgNode"](depth=24))
        settings.note = "an attribute"
        history = classes["HistoryBuffer"]()
        history.values = np.arange(2)
        other = classes["DictConfig"]()
        other.content = {"lr": settings}
        beside = {"settings": [settings, history, other, classes["Tags"]([1, 2])]}
        return pickle.dumps(objects | beside, protocol)
