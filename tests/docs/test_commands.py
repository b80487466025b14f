"""The commands, fields, links and Python of the documents, checked as far as parsing goes.

A shell reads every block of commands, so that loops, continued lines, variables and comments mean what they mean to a
user. It finds no program at all, only functions that note what they were called with; what was noted then goes through
the parser of the program that it names. Launchers are asked for a dry run. Nothing else is run.
"""

import ast
import contextlib
import importlib
import io
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest.mock
from typing import NamedTuple

import pytest
from absl import flags

from data_prep.conversion import runners
from vspw_jax import main

REPOSITORY = pathlib.Path(__file__).parents[2]
PAGES = sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("docs/*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "launch/README.md", "benchmarks/RESULTS.md", *PAGES]

SHELL = ("", "sh", "bash", "shell", "console")
OTHER_LANGUAGES = ("python", "text")
"""Of fenced blocks. A block in "text" holds no command."""

OTHER_PROGRAMS = ("cp", "docker", "git", "mypy", "ruff", "source", "tensorboard")
OTHER_MODULES = ("venv", "apache_beam.runners.worker.worker_pool_main")
"""What documents may call though nothing here knows its options."""

VARIABLES = ("JAX_PLATFORMS", "XLA_FLAGS")
"""What documents may set for a command."""

OPTIONAL = ("torch", "transformers")
"""Modules that a command may need and that CONTRIBUTING.md calls optional."""

CONVERTERS = tuple(f"data_prep.{name}" for name in ("vspw", "coco_stuff", "ade20k", "pascal_voc", "cityscapes"))
"""These take Beam's options too."""

PACKAGES = ("vspw_jax", "data_prep", "benchmarks")


class Mistake(Exception):
    """A document has a command that cannot be right, or that this test does not understand."""


class Block(NamedTuple):
    """Lines of code in a document, of which the first is number `line`; `language` is "" where none is named."""

    line: int
    language: str
    text: str


def blocks(text):
    """The fenced and indented blocks of a document.

    What is indented after an empty line counts, also where Markdown has it as a list's paragraph: better too many.
    """
    lines, found, number = text.splitlines(), [], 0
    while number < len(lines):
        fence = re.match(r"\s*(```+|~~~+)\s*(\w*)", lines[number])
        start = number + bool(fence)
        if fence:
            end = next((n for n in range(start, len(lines)) if lines[n].strip() == fence[1]), len(lines))
            language, number = fence[2], end + 1
        elif lines[number].startswith("    ") and not (number and lines[number - 1].strip()):
            is_outside = lambda line: line.strip() and not line.startswith("    ")
            end = next((n for n in range(start, len(lines)) if is_outside(lines[n])), len(lines))
            language, number = "", end
        else:
            number += 1
            continue
        found.append(Block(start + 1, language, textwrap.dedent("\n".join(lines[start:end]))))
    return found


def commands(script):
    """The commands that a shell would run, as lists of words.

    Raises:
      Mistake: the shell refuses the script, or it calls a program or sets a variable that is not known.
    """
    launchers = [path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("launch/*.sh")]
    with tempfile.TemporaryDirectory() as folder:
        noted = pathlib.Path(folder) / "noted"
        noted.touch()
        note = 'note() { printf "%s\\0" "$(compgen -e)" "$#" "$@" >>"$NOTED"; }'
        functions = [f'{name}() {{ note {name} "$@"; }}' for name in (*CHECKS, *OTHER_PROGRAMS, *launchers)]
        ended = subprocess.run(
            [shutil.which("bash"), "--noprofile", "--norc", "-c", "\n".join(["set -eu", note, *functions, script])],
            env={"PATH": folder, "NOTED": str(noted)},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise Mistake(f"The shell says: {ended.stderr.strip()}")
        words = iter(noted.read_text().split("\0")[:-1])
    found = []
    for variables in words:
        strange = set(variables.split()) - {"PATH", "NOTED", "PWD", "OLDPWD", "SHLVL", "_", *VARIABLES}
        if strange:
            raise Mistake(f"{', '.join(sorted(strange))}: not among the known variables {', '.join(VARIABLES)}")
        found.append([next(words) for _ in range(int(next(words)))])
    return found


def check_pip(arguments):
    """pip install of requirements that are there, or of packages."""
    if arguments[:1] != ["install"]:
        raise Mistake(f"pip {' '.join(arguments)}: expected pip install")
    words = iter(arguments[1:])
    for word in words:
        if word == "-r":
            if not (REPOSITORY / next(words, "?")).is_file():
                raise Mistake(f"pip {' '.join(arguments)}: no such file")
        elif not re.fullmatch(r"[\w.-]+(\[[\w.,-]+\])?((==|~=|!=|[<>]=?)[\w.*]+,?)*", word):
            raise Mistake(f"pip {' '.join(arguments)}: {word} names no package")


def forget_flags():
    """Undoes the parsing of the program's flags, and the recipe's fields among them."""
    for name in [name for name in flags.FLAGS if name.startswith("config.")]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS.flags_by_module_dict()[main.__name__]:
        flag.unparse()


def check_main(arguments):
    """Flags of the program, with the recipe that they load."""
    forget_flags()
    argv = ["main.py", *arguments]
    # Which fields of a recipe there are to set, ml_collections reads off sys.argv.
    with contextlib.chdir(REPOSITORY), unittest.mock.patch.object(sys, "argv", argv):
        try:
            main.parse_flags(argv)
        finally:
            forget_flags()


def check_parser(module, arguments):
    """Arguments of a module with a function parser()."""
    try:
        found = importlib.import_module(module)
        if hasattr(found, "__path__"):
            found = importlib.import_module(f"{module}.__main__")
    except ModuleNotFoundError as error:
        if error.name in OPTIONAL:
            pytest.skip(f"{module} needs {error.name}, which is not installed")
        raise
    if not hasattr(found, "parser"):
        raise Mistake(f"{module} has no function parser(), which gives its argparse.ArgumentParser")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, rest = found.parser().parse_known_args(arguments)
    except SystemExit as error:
        raise Mistake(said.getvalue()) from error
    if rest and module in CONVERTERS:
        if any(argument.startswith("--dask_") for argument in rest):
            pytest.importorskip("distributed")  # They are options of a runner that needs it.
        rest = runners.unknown_to_beam(rest)
    if rest:
        raise Mistake(f"{module} does not know {' '.join(rest)}")


def check_python(arguments):
    """A module that is run with -m."""
    if len(arguments) < 2 or arguments[0] != "-m":
        raise Mistake(f"python {' '.join(arguments)}: expected python -m MODULE")
    module, *arguments = arguments[1:]
    if module == main.__name__:
        check_main(arguments)
    elif module.split(".")[0] in PACKAGES:
        check_parser(module, arguments)
    elif module == "pytest":
        before = ["", *arguments]  # The word after -m is a marker, pytest's own check.
        words = [word for last, word in zip(before, arguments, strict=False) if last != "-m" and word[0] != "-"]
        missing = [word for word in words if not (REPOSITORY / word).exists()]
        if missing:
            raise Mistake(f"no such test: {', '.join(missing)}")
    elif module not in OTHER_MODULES:
        raise Mistake(f"python -m {module} is not among the known modules {', '.join(OTHER_MODULES)}")


def check_launcher(launcher, arguments):
    """Options of a script of launch/, and those of the program that it starts."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    command = [REPOSITORY / launcher, *arguments[:end], "--dry-run", *arguments[end:]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if ended.returncode:
        raise Mistake(ended.stderr)
    if any(option.startswith("--seeds=") for option in arguments[:end]):
        check_parser("benchmarks.ablation", arguments[end + 1 :])
        return
    check_main(["--distributed", *arguments[end + 1 :]])


CHECKS = {"pip": check_pip, "python": check_python}


def check(command):
    """Raises Mistake where a command, a list of words, cannot be right."""
    program, *arguments = command
    try:
        if program in CHECKS:
            CHECKS[program](arguments)
        elif program not in OTHER_PROGRAMS:
            check_launcher(program, arguments)
    except Exception as error:
        raise Mistake(f"{' '.join(command)}\n{error}") from error


def check_shell(text):
    """Checks every command of a document; gives all of them."""
    found = []
    for block in blocks(text):
        if block.language in SHELL:
            found += commands(block.text)
        elif block.language not in OTHER_LANGUAGES:
            raise Mistake(f"line {block.line}: {block.language!r} is none of {', '.join((*SHELL, *OTHER_LANGUAGES))}")
    for command in found:
        check(command)
    return found


def read(document):
    return (REPOSITORY / document).read_text()


def flat(config, prefix=""):
    """Names of a recipe's fields and sections, dotted."""
    for name, value in config.items():
        yield prefix + name
        if hasattr(value, "items"):
            yield from flat(value, f"{prefix}{name}.")


@pytest.fixture(scope="module")
def fields():
    """Names of the fields and sections of all recipes."""
    recipes = [runpy.run_path(str(path))["get_config"] for path in REPOSITORY.glob("configs/*.py")]
    return {name for get_config in recipes for size in ("full", "demo") for name in flat(get_config(size))}


SHELL_BLOCKS = [
    pytest.param(block.text, id=f"{document}:{block.line}")
    for document in DOCUMENTS
    for block in blocks(read(document))
    if block.language in SHELL
]


@pytest.mark.parametrize("script", SHELL_BLOCKS)
def test_every_command_of_the_documents_parses(script):
    found = commands(script)
    assert found, "a block without a command: fence it as ```text"
    for command in found:
        check(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_command_stands_outside_of_the_blocks(document):
    text = read(document)
    inside = {n for block in blocks(text) for n in range(block.line, block.line + len(block.text.splitlines()))}
    lines = enumerate(text.splitlines(), start=1)
    starts = re.compile(r"\s*(\$ )?(\w+=\S* )*(python3? -m|pip install|launch/\w+\.sh) ")
    assert not [f"{document}:{n}: {line}" for n, line in lines if starts.match(line) and n not in inside]
    check_languages = {block.language for block in blocks(text)}
    assert check_languages <= {*SHELL, *OTHER_LANGUAGES}


def test_a_shell_reads_loops_continued_lines_variables_and_comments():
    text = textwrap.dedent("""
        A list:

        - a command in it:

          ```bash
          XLA_FLAGS="--xla_a=8 --xla_b" python -m pytest \\
            tests   # and a comment
          ```

        Then

            for recipe in nce upernet
            do
              python -m vspw_jax.main --config=configs/$recipe.py:demo --input='clips/*.mp4' && tensorboard --logdir=X
            done

            # A comment alone.
            git archive HEAD | docker build --tag "a b" -

        ```text
        python -m no_command
        ```
    """)
    main_of = lambda recipe: ["python", "-m", "vspw_jax.main", f"--config=configs/{recipe}.py:demo"]
    curves = ["tensorboard", "--logdir=X"]
    *found, one, other = check_shell(text)
    assert found == [
        ["python", "-m", "pytest", "tests"],
        [*main_of("nce"), "--input=clips/*.mp4"],
        curves,
        [*main_of("upernet"), "--input=clips/*.mp4"],
        curves,
    ]
    assert sorted([one, other]) == [["docker", "build", "--tag", "a b", "-"], ["git", "archive", "HEAD"]]
    assert [block.line for block in blocks(text)] == [7, 13, 22]


PROGRAM = "python -m vspw_jax.main --config=configs/nce.py"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f"{PROGRAM} --mod=train", "mod"),
        (f"{PROGRAM} --mode=trane", "trane"),
        (f"{PROGRAM} train", "Unexpected arguments"),
        (f"{PROGRAM} --config.train.step=5", "has no field 'train.step'"),
        (f"{PROGRAM} --config.loss.pne.weight=1", "has no field 'loss.pne.weight'"),
        (f"{PROGRAM} --config.train.steps=many", "many"),
        (f"{PROGRAM}:demi", "demi"),
        ("python -m vspw_jax.main --config=configs/nec.py", "configs/nec.py"),
        (f"{PROGRAM} --mode=train && {PROGRAM} --mode=trane", "trane"),
        (f"{PROGRAM} --mode=train \\\n  --workdr=runs/x   # not the last line", "workdr"),
        ("for recipe in nce unpernet; do python -m vspw_jax.main --config=configs/$recipe.py; done", "unpernet"),
        ("for recipe in nce; do python -m vspw_jax.main --config=configs/$recipe.py", "syntax error"),
        (f"XLA_FLAG=--xla_x {PROGRAM}", "XLA_FLAG"),
        (f"{PROGRAM} --workdir=$WORKDIR", "WORKDIR"),
        ("python -m vspw_jax.mein --config=configs/nce.py", "vspw_jax.mein"),
        ("python -m vspw_jax.metrics --predictions=A --data=B --reprot=x.html", "--reprot"),
        ("python -m vspw_jax.metrics --predictions=A", "--data"),
        ("python -m vspw_jax.submission --chek=A --data=B", "--check"),
        ("python -m vspw_jax.ensemble --scores=A --scores=B --method=meen --output=C", "meen"),
        ("python -m data_prep.verfy --records=A", "verfy"),
        ("python -m data_prep.vspw --source=A --output=B --shortside=480", "--shortside"),
        ("python -m data_prep.ade20k --source=A --output=B --numbering=0_150", "0_150"),
        ("python -m benchmarks.faults --kils=200", "--kils"),
        ("python -m benchmarks.measure", "no function parser()"),
        ("python -m pytest tests/test_nothing.py", "tests/test_nothing.py"),
        ("python -m pytets", "pytets"),
        ("python main.py", "expected python -m"),
        ("launch/local.sh --proceses=2 -- --config=configs/nce.py", "--proceses"),
        ("launch/local.sh --processes=2 -- --config=configs/nce.py --config.train.bach=2", "train.bach"),
        ("launch/lokal.sh --processes=2 -- --config=configs/nce.py", "launch/lokal.sh"),
        ("pip install -r requirement.txt", "no such file"),
        ("pip instal jax", "pip install"),
        ("pip install 'jax[tpu'", "jax[tpu"),
        ("tensorbord --logdir=runs", "tensorbord"),
    ],
)
@pytest.mark.parametrize("block", ["    {}\n", "```bash\n{}\n```\n"], ids=["indented", "fenced"])
def test_a_mistake_is_found(block, script, message):
    block = block.format(script.replace("\n", "\n    ") if block.startswith(" ") else script)
    with pytest.raises(Mistake, match=re.escape(message)):
        check_shell(f"A sentence.\n\n{block}\nAnother.\n")


@pytest.mark.parametrize(
    "script", [f"{PROGRAM} --distributed --naming=unilm", "launch/local.sh -- --config=configs/nce.py"]
)
def test_flags_of_one_command_do_not_reach_the_next(script):
    check_shell(f"    {script}")
    forgotten = flags.FLAGS.flags_by_module_dict()[main.__name__]
    assert not any(flag.present for flag in forgotten) and not flags.FLAGS.is_parsed()


FILE_SUFFIXES = ("csv", "json", "py", "txt")


def wrong_fields(text, fields):
    """Names in `code` of a text that look like fields of a recipe and are none; capitals stand for any name."""
    names = [name for code in re.findall(r"`([^`\n]+)`", text) for name in re.findall(r"(?<![\w./-])[\w.]+", code)]
    names += re.findall(r"--config\.([\w.]+)", text)
    sections = {name.split(".")[0] for name in fields if "." in name}
    named = {name.strip(".") for name in names if name.split(".")[0] in sections and "." in name.strip(".")}
    named = {name for name in named if name.rsplit(".", 1)[1] not in FILE_SUFFIXES}
    pattern = lambda name: re.sub(r"\b[A-Z]+\b", r"\\w+", name.replace(".", r"\."))
    return sorted(name for name in named if not any(re.fullmatch(pattern(name), field) for field in fields))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_fields_that_a_document_names_exist(document, fields):
    assert not wrong_fields(read(document), fields)


def test_a_misspelled_field_in_a_sentence_is_found(fields):
    text = "`data.mixture.NAME.records`, `train.txt`, `--config.run.keep=1`, `loss.nce.group`, `--config.run.keeps=1`"
    assert wrong_fields(text, fields) == ["loss.nce.group", "run.keeps"]


def anchors(document):
    """What headings of a document are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ +(.+?) *$", read(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document, text):
    """Links and pictures of a document that lead to no file, or to no heading of one."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        if not target.exists() or (anchor and anchor not in anchors(os.path.relpath(target, REPOSITORY))):
            dead.append(link)
    return dead


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_pictures_lead_somewhere(document):
    assert not dead_links(document, read(document))


def test_a_dead_link_is_found():
    text = "[a](LICENSE) ![b](docs/none.png) [c](docs/README.md#no-such-heading) [d](https://a.b) [![e](x.png)](y.md)"
    assert dead_links("README.md", text) == ["docs/none.png", "docs/README.md#no-such-heading", "x.png", "y.md"]


def check_code(text):
    """Compiles Python and resolves its imports and what it takes from the modules that it imports."""
    modules = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), names := {})
            modules |= {alias.asname or alias.name: names[alias.asname or alias.name] for alias in node.names}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            getattr(modules[node.value.id], node.attr)


PYTHON_BLOCKS = [
    pytest.param(block.text, id=f"{document}:{block.line}")
    for document in DOCUMENTS
    for block in blocks(read(document))
    if block.language == "python"
]


@pytest.mark.parametrize("text", PYTHON_BLOCKS)
def test_python_of_the_documents_compiles_and_its_imports_resolve(text):
    check_code(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("from vspw_jax.interop import konvert", ImportError),
        ("from vspw_jax.interop import convert\nconvert.model_of_torch('x')", AttributeError),
        ("convert.save(", SyntaxError),
    ],
)
def test_a_mistake_in_python_is_found(text, error):
    with pytest.raises(error):
        check_code(text)


def test_the_first_screen_stays_one_and_keeps_its_two_commands():
    lines = read("README.md").splitlines()
    assert len(lines) <= 100
    for command in ("python -m vspw_jax.main --config=configs/nce.py:demo", "python -m pytest"):
        assert f"pip install -r requirements.txt && {command}" in [line.strip() for line in lines]


def test_the_index_names_every_page():
    index = read("docs/README.md")
    assert not [page for page in PAGES if page != "docs/README.md" and f"]({pathlib.Path(page).name})" not in index]
