"""Files that stand in a checkpoint's place and are none: what a download leaves, and files of other programs."""

import io
import tarfile
import zipfile

import numpy as np


def _zip(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"1234")
    return buffer.getvalue()


def _tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def _npz():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1142387203\n"
QUOTA = b"<!DOCTYPE html><html><head><title>Google Drive -\n Quota exceeded</title></head></html>"
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

FILES = {
    "empty": (b"", "empty. Fetch the checkpoint again"),
    "Git LFS": (POINTER, "a Git LFS pointer in place of a file of 1142387203 bytes. Run git lfs pull"),
    "git-annex": (b"/annex/objects/SHA256E-s1--ab.pth\n", "a git-annex pointer"),
    "web page": (QUOTA, "a web page, which says 'Google Drive - Quota exceeded'. Fetch the checkpoint again"),
    "web page after spaces": (b"\xef\xbb\xbf\r\n <HTML><body>404</body>", "a web page"),
    "store's error": (DENIED, "an XML message of a store, which says 'Access Denied'"),
    "service's error": (b'{"error":{"code":404,"message":"Not Found"}}', "JSON, not tensors, which says 'Not Found'"),
    "text": (b"hello, world\n", "text that begins 'hello, world'"),
    "TensorFlow's list": (b'model_checkpoint_path: "model.ckpt-1"\n', "the list of checkpoints that TensorFlow keeps"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras writes"),
    "Keras": (_zip("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:\xc2\x01" + bytes(50), "an ONNX model"),
    "TensorFlow Lite": (b"\x1c\x00\x00\x00TFL3" + bytes(50), "a TensorFlow Lite model"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(50), "a GGUF file"),
    "NumPy": (b"\x93NUMPY\x01\x00v\x00{'descr'", "a NumPy array"),
    "several NumPy": (_npz(), "NumPy arrays"),
    "TorchScript": (_zip("m/data.pkl", "m/constants.pkl", "m/code/m.py"), "TorchScript. Save torch.jit.load"),
    "archive": (_zip("release/model.pth", "release/README"), "an archive around a checkpoint. Unpack it"),
    "another zip": (_zip("word/document.xml"), "of a kind that is not known"),
    "tar": (_tar(), "a tar archive. Unpack it"),
    "xz": (b"\xfd7zXZ\x00\x00\x04" + bytes(50), "compressed by xz. Unpack it with unxz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00" + bytes(50), "compressed by zstd"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture"),
}
"""By what it is: the bytes, and the core of what is said."""

NAMED = {
    "saved_model.pb": "a part of a TensorFlow model",
    "model.ckpt-100.data-00000-of-00001": "a part of a TensorFlow model or checkpoint",
    "flax_model.msgpack": "a Flax model",
    "model.onnx": "an ONNX model",
}
"""By the name, where the bytes tell nothing: the core of what is said."""
