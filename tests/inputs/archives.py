"""Archives as programs of Windows make them."""

import zipfile


def windows_zip(path, members):
    """A zip of (name, bytes) whose folders are named with backslashes and listed, as .NET's older versions write it."""
    folders = {name.rpartition("/")[0] for name, _ in members if "/" in name}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*((f"{folder}/", b"") for folder in sorted(folders)), *members]:
            info = zipfile.ZipInfo(name.replace("/", "\\"))
            info.create_system, info.external_attr = 0, 0x10 if name.endswith("/") else 0x20
            archive.writestr(info, data)
    return path
