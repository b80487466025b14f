"""Lists of videos as editors and operating systems write them."""


def utf16(names):
    """As Windows' Notepad saves "Unicode"."""
    return "\r\n".join(names).encode("utf-16")


def without_last(path):
    """Takes the last name out of a list, whose video stays, and gives it."""
    *others, last = path.read_text().split()
    path.write_text("\n".join(others))
    return last


def utf8_with_mark(names):
    """As Windows' Notepad saves UTF-8."""
    return "\r\n".join(names).encode("utf-8-sig")


def old_mac(names):
    """Lines that end in a carriage return alone."""
    return "\r".join(names).encode()


def ragged(names):
    """Empty lines, and spaces around names."""
    return ("\n\n" + "\n \n".join(f" {name}\t" for name in names) + "\n\n").encode()


def latin1(names):
    """As old programs write names with accents."""
    return "\n".join(names).encode("latin-1")


def utf16_without_mark(names):
    """As programs write UTF-16 that do not say so."""
    return "\n".join(names).encode("utf-16-le")
