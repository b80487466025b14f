"""What a file is that stands in a checkpoint's place and is none, by its first bytes and its name.

A download that went wrong leaves a web page, a store's error or a pointer; people also bring files of other programs.
"""

import codecs
import pathlib
import re

HEAD = 4096
"""Bytes that are looked at."""

BINARY = (
    (0, rb"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)"),
    (0, rb"GGUF", "a GGUF file of llama.cpp"),
    (0, rb"\x93NUMPY", "a NumPy array (.npy)"),
    (4, rb"TFL3", "a TensorFlow Lite model"),
    (0, rb"\x08[\x01-\x20]\x12.[\w.+ -]{2,}", "an ONNX model"),
    (257, rb"ustar", "a tar archive. Unpack it, and name the checkpoint in it"),
    (0, rb"\x1f\x8b\x08", "compressed more than once. Unpack it with gunzip"),
    (0, rb"BZh[1-9]1AY", "compressed by bzip2. Unpack it with bunzip2"),
    (0, rb"\xfd7zXZ\x00", "compressed by xz. Unpack it with unxz"),
    (0, rb"\x28\xb5\x2f\xfd", "compressed by zstd. Unpack it with unzstd"),
    (0, rb"7z\xbc\xaf\x27\x1c", "a 7z archive. Unpack it"),
    (0, rb"Rar!", "a RAR archive. Unpack it"),
    (0, rb"%PDF", "a PDF document"),
    (0, rb"\x89PNG|\xff\xd8\xff", "a picture"),
    (4, rb"ftyp", "a video"),
)
"""(place, pattern there, what such a file is)."""

NAMES = (
    (r"\.onnx$", "an ONNX model, by its name"),
    (r"(\.pb|\.data-\d+-of-\d+|\.ckpt\.index)$", "a part of a TensorFlow model or checkpoint, by its name"),
    (r"\.msgpack$", "a Flax model (msgpack), by its name"),
    (r"\.tflite$", "a TensorFlow Lite model, by its name"),
)
"""(pattern of the name, what such a file is); looked at where the bytes tell nothing."""

ARCHIVES = (
    (r"(^|/)constants\.pkl$", "TorchScript. Save torch.jit.load(FILE).state_dict() with torch.save"),
    (r"\.weights\.h5$", "a Keras model (.keras)"),
    (r"\.npy$", "NumPy arrays (.npz)"),
    (r"(^|/)saved_model\.pb$", "a TensorFlow model"),
    (r"\.(pth|pt|bin|safetensors)(\.tar)?$", "an archive around a checkpoint. Unpack it"),
)
"""(pattern of an entry's name, what such a zip is)."""

FETCH = "Fetch the checkpoint again, in a browser or with the site's own tool"


def _said(text: str, pattern: str) -> str:
    """What a page or a message says in a pattern's group, for a sentence."""
    found = re.search(pattern, text, re.IGNORECASE | re.DOTALL)
    return f", which says {' '.join(found[1].split())[:200]!r}" if found else ""


def _describe_text(text: str) -> str:
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("version https://git-lfs"):
        size = re.search(r"^size (\d+)", text, re.MULTILINE)
        real = f" of {size[1]} bytes" if size else ""
        return f"a Git LFS pointer in place of a file{real}. Run git lfs pull in its repository"
    if "/annex/objects/" in start[:300]:
        return "a git-annex pointer in place of a file. Run git annex get in its repository"
    if re.match(r"<(!doctype html|html|head|body)", start, re.IGNORECASE):
        return f"a web page{_said(text, r'<title[^>]*>(.*?)</title>')}. {FETCH}"
    if start.startswith("<"):
        return f"an XML message of a store{_said(text, r'<Message>(.*?)</Message>')}. {FETCH}"
    if start.startswith(("{", "[")):
        message = r'"(?:message|error|detail)"\s*:\s*"(.*?)"'
        return f"JSON, not tensors{_said(text, message)}. {FETCH}"
    if start.startswith("model_checkpoint_path:"):
        return "the list of checkpoints that TensorFlow keeps"
    return f"text that begins {' '.join(text[:60].split())!r}. {FETCH}"


def _is_text(head: bytes) -> bool:
    """Whether a file that begins so is text. A checkpoint has zeros in its first bytes, or begins as no text can."""
    if re.search(rb"[\x00-\x08\x0e-\x1a]", head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return head.lstrip().startswith(b"<")  # A page in another encoding.
    return True


def describe(path: pathlib.Path) -> str | None:
    """What a file is, if it is known to be no checkpoint; None if it may be one."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        return f"empty. {FETCH}"
    for place, pattern, what in BINARY:
        if re.match(pattern, head[place:], re.DOTALL):
            return what
    if _is_text(head):
        return _describe_text(head.decode("utf-8", "replace"))
    return next((what for pattern, what in NAMES if re.search(pattern, path.name)), None)


def describe_zip(names: list[str]) -> str | None:
    """What a zip with these entries is, if it is known to be none of torch.save."""
    return next((what for pattern, what in ARCHIVES if any(re.search(pattern, name) for name in names)), None)
