"""Recipes that are none, or that lack or have something too much: files of one's own."""

MINE = """from configs import upernet


def get_config(size="full"):
    config = upernet.get_config(size)
    {}
    return config
"""

FILES = {
    "text": "seed = 0\nmodel upernet\n",
    "unfinished": "def get_config(size='full'):\n    return (\n",
    "empty": "",
    "another import": "import no_such_module\n",
    "no function": "get_config = 3\n",
    "no size": "from configs import upernet\n\n\ndef get_config():\n    return upernet.get_config('demo')\n",
    "nothing returned": "def get_config(size='full'):\n    pass\n",
    "dict returned": "def get_config(size='full'):\n    return {'seed': 0}\n",
    "misspelt section": MINE.format("config.trian.steps = 3"),
    "another type": MINE.format("config.train.steps = 'many'"),
    "new field": MINE.format("config.train.stepz = 3"),
    "field left out": MINE.format("del config.train.accumulate"),
    "section left out": MINE.format("del config.optimizer"),
    "section of one number": MINE.format("del config.train; config.train = 5"),
    "new term": MINE.format("config.loss.segmentation.weights.focal = 1.0"),
    "term left out": MINE.format("del config.loss.segmentation.weights.pixel"),
    "flag of text": MINE.format("del config.evaluate.flip; config.evaluate.flip = 'no'"),
}
"""Text by what is wrong with it."""


def written(folder, kind):
    """The path of such a recipe in a folder."""
    path = folder / "mine.py"
    path.write_text(FILES[kind])
    return path
